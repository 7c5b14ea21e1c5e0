package store

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The shadow file has been feedback.json, so somebody may still be reading it. It is patched in place, but no reader that opened
// it as feedback.json may see that:
//
//   - A write lease (fcntl(2), F_SETLEASE) is granted only while nobody else has the file open or mapped. Whoever opens it then
//     waits until the lease ends, which is after the patched file has been published.
//   - Direct I/O (open(2), O_DIRECT) puts new pages into the page cache in place of the old ones. Pages that a reader passed on to
//     a socket or a pipe (sendfile, splice) before it closed the file stay as they were.
//   - A file with a second name is left alone: that may be somebody's backup.
//
// If any of that is not possible, writePending patches a clone that shares blocks with the current file (FICLONE), or writes the
// file whole.

// directAlign is the alignment of offsets, lengths and buffers for direct I/O: the size of a page.
const directAlign = 4096

// openShadow opens the shadow file at path for writing, under a lease that ends when it is closed. It returns nil if the file
// can't be patched safely: if it is not the version known any more, or differs from the current file in more than its content.
func openShadow(path string, known os.FileInfo, current string) *os.File {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	file := os.NewFile(uintptr(fd), path)
	info, err := file.Stat()
	if err == nil && isSameVersion(info, known) && canReplace(fd, current) && supportsDirectIO(current) {
		if _, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err == nil {
			return file
		}
	}
	file.Close()
	return nil
}

// canReplace reports whether the file has only one name, and has owner and mode of the current one.
func canReplace(fd int, current string) bool {
	var st, like unix.Stat_t
	return unix.Fstat(fd, &st) == nil && unix.Lstat(current, &like) == nil &&
		st.Nlink == 1 && st.Mode == like.Mode && st.Uid == like.Uid && st.Gid == like.Gid
}

// supportsDirectIO reports whether the file at path lies on a file system whose leases and direct I/O are known to work as
// described above: ext4 (whose magic number ext2 and ext3 share) or XFS.
func supportsDirectIO(path string) bool {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil || int64(fs.Type) != unix.EXT4_SUPER_MAGIC && int64(fs.Type) != unix.XFS_SUPER_MAGIC {
		return false
	}
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_DIOALIGN, &st)
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 {
		return err == nil // Linux before 6.1 does not report the alignment
	}
	return st.Dio_offset_align > 0 && st.Dio_offset_align <= directAlign && st.Dio_mem_align <= directAlign
}

// setDirectIO switches the open file to direct I/O. It reports false if that is not known to work there.
func setDirectIO(file *os.File) bool {
	if !supportsDirectIO(file.Name()) {
		return false
	}
	flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(file.Fd(), unix.F_SETFL, flags|unix.O_DIRECT)
	}
	return err == nil
}

// cloneFile makes the new, empty file share all blocks of the one at path (ioctl_ficlone(2)). It reports false if the file
// system can't.
func cloneFile(file *os.File, path string) bool {
	from, err := os.Open(path)
	if err != nil {
		return false
	}
	defer from.Close()
	return unix.IoctlFileClone(int(file.Fd()), int(from.Fd())) == nil
}

// renameExchange exchanges the names of two files (renameat2(2), RENAME_EXCHANGE). It reports false if the file system can't,
// or if the file that gets the name a could not be patched anyway.
func renameExchange(a, b string) (bool, error) {
	if !supportsDirectIO(a) {
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

// alignedBuffer returns n bytes at an address that direct I/O takes.
func alignedBuffer(n int) []byte {
	b := make([]byte, n+directAlign)
	skip := -uintptr(unsafe.Pointer(&b[0])) & (directAlign - 1)
	return b[skip:][:n:n]
}
