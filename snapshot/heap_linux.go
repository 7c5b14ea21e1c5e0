package snapshot

import (
	"os"

	"golang.org/x/sys/unix"
)

// openNameless makes a file that never has a name, where the file system can (tmpfs, ext4, xfs, btrfs).
func openNameless(folder string) (*os.File, error) {
	fd, err := unix.Open(folder, unix.O_TMPFILE|unix.O_EXCL|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return openNamed(folder) // which says what is wrong, if anything is
	}
	return os.NewFile(uintptr(fd), folder), nil
}

// punch gives part of a file back to the volume. Where the file system can't, the space is used again.
func punch(file *os.File, at, n int64) {
	_ = unix.Fallocate(int(file.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, at, n)
}
