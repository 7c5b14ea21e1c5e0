package manifest_test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capture/store/manifest"
)

// A file server can have a lease on a manifest. The kernel then makes the reader wait until the file server gives up the lease.
// The manifest's path may be a link.
func TestReadLeasedManifest(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "feedback.json")
	const text = `{"format":1,"sha256":"4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945","rows":0,"bytes":2}`
	target := filepath.Join(dir, "other")
	if err := os.WriteFile(target, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, manifest.Path(path)); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(target, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_WRLCK); err != nil {
		t.Skipf("the file system grants no lease: %v", err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := manifest.Read(path)
		done <- err
	}()
	for held := unix.F_WRLCK; held == unix.F_WRLCK && len(done) == 0; time.Sleep(time.Millisecond) {
		if held, err = unix.FcntlInt(f.Fd(), unix.F_GETLEASE, 0); err != nil { // changes once somebody else opens the file
			t.Fatal(err)
		}
	}
	if _, err := unix.FcntlInt(f.Fd(), unix.F_SETLEASE, unix.F_UNLCK); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
