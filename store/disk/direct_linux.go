package disk

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// DirectAlign is the alignment of offsets, lengths and buffers for direct I/O, in bytes. It is the size of a page.
const DirectAlign = 4096

// SupportsDirectIO reports whether the file at path can be patched by direct I/O. The file system must be ext4 (ext2 and
// ext3 have the same magic number) or XFS. On these file systems, leases and direct I/O are known to hide a patch from
// readers (see patchinplace_linux.go in package store). The alignment that direct I/O needs must be at most DirectAlign.
func SupportsDirectIO(path string) bool {
	var fs unix.Statfs_t
	if err := unix.Statfs(path, &fs); err != nil || int64(fs.Type) != unix.EXT4_SUPER_MAGIC && int64(fs.Type) != unix.XFS_SUPER_MAGIC {
		return false
	}
	var st unix.Statx_t
	err := unix.Statx(unix.AT_FDCWD, path, 0, unix.STATX_DIOALIGN, &st)
	if err != nil || st.Mask&unix.STATX_DIOALIGN == 0 {
		return err == nil // Linux before 6.1 does not report the alignment, so assume that it is small enough
	}
	return st.Dio_offset_align > 0 && st.Dio_offset_align <= DirectAlign && st.Dio_mem_align <= DirectAlign
}

// SetDirectIO switches the open file to direct I/O. If the file system is not known to support direct I/O, or if the kernel
// refuses the switch, SetDirectIO changes nothing and reports false.
func SetDirectIO(file *os.File) bool {
	if !SupportsDirectIO(file.Name()) {
		return false
	}
	flags, err := unix.FcntlInt(file.Fd(), unix.F_GETFL, 0)
	if err == nil {
		_, err = unix.FcntlInt(file.Fd(), unix.F_SETFL, flags|unix.O_DIRECT)
	}
	return err == nil
}

// AlignedBuffer returns n bytes at an address that is aligned for direct I/O.
func AlignedBuffer(n int) []byte {
	b := make([]byte, n+DirectAlign)
	skip := -uintptr(unsafe.Pointer(&b[0])) & (DirectAlign - 1)
	return b[skip:][:n:n]
}
