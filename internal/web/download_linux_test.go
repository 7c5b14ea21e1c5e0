package web

import (
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A file server can have a lease on the file. The kernel then makes capture wait until the file server gives up the lease.
func TestDownloadOfALeasedFile(t *testing.T) {
	h := newHarness(t, nil)
	h.replace(t, "feedback.json", "[]\n")
	path := filepath.Join(h.dir, "feedback.json")
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("the file system grants no lease: %v", err)
	}
	done := make(chan *httptest.ResponseRecorder, 1)
	go func() { done <- h.do("GET", "/feedback.json") }()
	for held := unix.F_WRLCK; held == unix.F_WRLCK && len(done) == 0; time.Sleep(time.Millisecond) {
		if held, err = unix.FcntlInt(f.Fd(), unix.F_GETLEASE, 0); err != nil { // changes once somebody else opens the file
			t.Fatal(err)
		}
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		t.Fatal(err)
	}
	if w := <-done; w.Code != 200 || w.Body.String() != "[]\n" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}
