package store

import (
	"os"

	"golang.org/x/sys/unix"

	"capture/store/disk"
)

// The shadow file was feedback.json before, so a reader may still have it open. It is patched in place, but a reader that
// opened it as feedback.json must not see the change. Three rules ensure this:
//
//   - A write lease (fcntl(2), F_SETLEASE) is granted only while nobody else has the file open or mapped. Whoever opens the
//     file later waits until the lease ends. The lease ends after the last byte is written, before the file is synced and
//     published. So every reader gets a file that is complete and does not change any more. A program that does not wait
//     (O_NONBLOCK), such as GNU tar, gets EAGAIN, so the lease is held no longer than necessary.
//   - Direct I/O (open(2), O_DIRECT) does not modify pages in the page cache; it drops them, and later reads get new pages. A
//     reader may have passed old pages on to a socket or a pipe (sendfile, splice) before it closed the file. These pages stay
//     unchanged.
//   - A file with a second name is not patched: that name may be somebody's backup.
//
// If any of this is not possible, writePending patches a clone that shares blocks with the current file (FICLONE), or writes
// the whole file.

// openShadow opens the shadow file at path for writing, under a lease. endLease ends the lease, and so does closing the
// file. openShadow returns nil if the file cannot be patched safely: for example, if the file is no longer the known
// version, or if its owner or mode differs from that of the current file.
func openShadow(path string, known os.FileInfo, current string) *os.File {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	file := os.NewFile(uintptr(fd), path)
	info, err := file.Stat()
	if err == nil && isSameVersion(info, known) && canReplace(fd, current) && disk.SupportsDirectIO(current) {
		if _, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err == nil {
			return file
		}
	}
	file.Close()
	return nil
}

// endLease ends the lease on a file that openShadow has opened. If that fails, the lease ends when the file is closed.
func endLease(file *os.File) { unix.FcntlInt(file.Fd(), unix.F_SETLEASE, unix.F_UNLCK) }

// canReplace reports whether the file has only one name, and the same owner and mode as the current file.
func canReplace(fd int, current string) bool {
	var st, like unix.Stat_t
	return unix.Fstat(fd, &st) == nil && unix.Lstat(current, &like) == nil &&
		st.Nlink == 1 && st.Mode == like.Mode && st.Uid == like.Uid && st.Gid == like.Gid
}

// cloneFile makes the new, empty file share all blocks of the file at path (ioctl_ficlone(2)). It reports false if that fails,
// usually because the file system has no clones.
func cloneFile(file *os.File, path string) bool {
	from, err := disk.OpenRegular(path)
	if err != nil {
		return false
	}
	defer from.Close()
	return unix.IoctlFileClone(int(file.Fd()), int(from.Fd())) == nil
}

// renameExchange exchanges the names of two files (renameat2(2), RENAME_EXCHANGE). It reports false if the file system does
// not support this. It also reports false if the file system does not support patching, because the exchange only serves to
// keep the old file for a patch.
func renameExchange(a, b string) (bool, error) {
	if !disk.SupportsDirectIO(a) {
		return false, nil
	}
	switch err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err {
	case nil:
		return true, nil
	case unix.EINVAL, unix.ENOSYS:
		return false, nil
	default:
		return false, &os.LinkError{Op: "rename", Old: a, New: b, Err: err}
	}
}
