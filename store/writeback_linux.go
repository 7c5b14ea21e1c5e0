package store

import (
	"os"

	"golang.org/x/sys/unix"
)

// startWriteBack has the kernel begin to write that part of f to the device, so that the fsync at the end of a large file
// finds little left to do, and other writers are not held up by it. It is a hint: an error changes nothing.
func startWriteBack(f *os.File, off, n int64) {
	unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
