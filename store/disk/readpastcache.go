package disk

import (
	"context"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// ChunkBytes is the length in bytes of the pieces in which large files are read and written.
const ChunkBytes = 1 << 20

// ReadError means that a file cannot be read.
type ReadError struct{ error }

func (e *ReadError) Unwrap() error { return e.error }

// ReadPastCache calls use with the bytes of the file, chunk by chunk. It reads with direct I/O if the file system supports
// that.
func ReadPastCache(ctx context.Context, file *os.File, use func([]byte) error) error {
	SetDirectIO(file)
	buf := AlignedBuffer(ChunkBytes)
	for off := int64(0); ctx.Err() == nil; {
		n, err := ReadOnce(file, buf, off)
		switch {
		case err != nil:
			return &ReadError{err}
		case n == 0:
			return nil
		}
		if err := use(buf[:n]); err != nil {
			return err
		}
		off += int64(n)
	}
	return ctx.Err()
}

// ReadOnce reads at most len(buf) bytes at off, in a single read. At the end of the file it returns 0. File.ReadAt would not
// work with direct I/O, which accepts only aligned offsets. After a short read at the end of the file, ReadAt would read again
// at an offset that is usually not aligned.
func ReadOnce(file *os.File, buf []byte, off int64) (int, error) {
	for {
		n, err := unix.Pread(int(file.Fd()), buf, off)
		if err != unix.EINTR {
			return n, os.NewSyscallError("pread", err)
		}
	}
}

// WithIdlePriority calls f on a thread that has the lowest priority. The thread ends when f returns, because only root may
// raise a priority again. WithIdlePriority is a variable so that a test can run all code on one thread.
var WithIdlePriority = func(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends with the goroutine
		lowerPriority()
		done <- f()
	}()
	return <-done
}
