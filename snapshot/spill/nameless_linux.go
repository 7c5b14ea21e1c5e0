package spill

import (
	"os"

	"golang.org/x/sys/unix"
)

// openNameless creates a file that never has a name. tmpfs, ext4, XFS and Btrfs support such files. On other file systems,
// openNameless creates a file with a name and removes the name at once.
func openNameless(folder string) (*os.File, error) {
	fd, err := unix.Open(folder, unix.O_TMPFILE|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return openNamed(folder) // the error message of openNamed is clearer
	}
	return os.NewFile(uintptr(fd), folder), nil
}

// punchHole gives the space of a part of the file back to the volume. It ignores errors, for example on a file system
// without holes, because the allocator reuses the space later.
func punchHole(file *os.File, offset, size int64) {
	_ = unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, offset, size)
}
