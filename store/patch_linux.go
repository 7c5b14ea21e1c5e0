package store

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The previous version of a large file is kept under the temporary name, as a spare: the next version is made of it by
// writing the ranges that differ. Nobody may see that who has it open from the time when it was the current one:
//
//   - A write lease (fcntl(2), F_SETLEASE) is given only while nobody else has the file open or mapped, and whoever opens
//     it then waits until the patched file has been put in its place.
//   - It is written by direct I/O, which puts new pages in the place of the old ones: those that a reader has handed on to
//     a socket or a pipe (sendfile, splice) before it closed the file stay as they were.
//   - A file with a second name is left alone: that may be somebody's backup.
//
// Where any of that can't be had, a clone with shared blocks is patched (FICLONE), or else the file is written whole.

// spareAlign is the least that direct I/O is aligned to, here: the size of a page.
const spareAlign = 4096

// openSpare opens the spare at path for writing, under a lease that ends when it is closed, where it is still as it was
// known and like the current file in all but its content. It is nil where that can't be done safely.
func openSpare(path string, known os.FileInfo, current string) *os.File {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_DIRECT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	file := os.NewFile(uintptr(fd), path)
	info, err := file.Stat()
	if err == nil && os.SameFile(info, known) && info.Size() == known.Size() && info.ModTime().Equal(known.ModTime()) &&
		replaces(fd, current) && detachesPages(current) {
		if _, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_WRLCK); err == nil {
			return file
		}
	}
	file.Close()
	return nil
}

// replaces says whether the file has one name only, and owner and mode of the current one.
func replaces(fd int, current string) bool {
	var is, like unix.Stat_t
	return unix.Fstat(fd, &is) == nil && unix.Lstat(current, &like) == nil &&
		is.Nlink == 1 && is.Mode == like.Mode && is.Uid == like.Uid && is.Gid == like.Gid
}

// detachesPages says whether the file at path lies on a file system whose leases and direct I/O are known to do what is
// asked of them.
func detachesPages(path string) bool {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil || int64(fs.Type) != unix.EXT4_SUPER_MAGIC && int64(fs.Type) != unix.XFS_SUPER_MAGIC {
		return false
	}
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_DIOALIGN, &st)
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 {
		return err == nil // a kernel before 6.1 does not say
	}
	return st.Dio_offset_align > 0 && st.Dio_offset_align <= spareAlign && st.Dio_mem_align <= spareAlign
}

// pastCache has the file written past the system's cache from now on, where that is known to work.
func pastCache(file *os.File) bool {
	if !detachesPages(file.Name()) {
		return false
	}
	flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(file.Fd(), unix.F_SETFL, flags|unix.O_DIRECT)
	}
	return err == nil
}

// cloneFile has the new, empty file share all blocks of the one at path, where the file system can.
func cloneFile(file *os.File, path string) bool {
	from, err := os.Open(path)
	if err != nil {
		return false
	}
	defer from.Close()
	return unix.IoctlFileClone(int(file.Fd()), int(from.Fd())) == nil
}

// exchange swaps the names of two files, so that the one at b can be the next spare. It is false where that is of no use.
func exchange(a, b string) (bool, error) {
	if !detachesPages(a) {
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

// alignedBuffer is n bytes at a place that direct I/O takes.
func alignedBuffer(n int) []byte {
	b := make([]byte, n+spareAlign)
	skip := -uintptr(unsafe.Pointer(&b[0])) & (spareAlign - 1)
	return b[skip:][:n:n]
}
