package filetest

import (
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// OpenLeased takes a lease on the file at path, as a file server does, and calls the function open, which must open this
// file. The kernel makes open wait until the lease ends. While open waits, OpenLeased calls atWait, unless atWait is nil,
// and then gives up the lease. It returns the error of open. OpenLeased skips the test if the file system grants no lease.
func OpenLeased(t testing.TB, path string, open func() error, atWait func()) error {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("the file system grants no lease: %v", err)
	}
	done := make(chan error, 1)
	go func() { done <- open() }()
	for held := unix.F_WRLCK; held == unix.F_WRLCK && len(done) == 0; time.Sleep(time.Millisecond) {
		// F_GETLEASE returns another value once somebody else opens the file.
		if held, err = unix.FcntlInt(f.Fd(), unix.F_GETLEASE, 0); err != nil {
			t.Fatal(err)
		}
	}
	if atWait != nil {
		atWait()
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		t.Fatal(err)
	}
	return <-done
}
