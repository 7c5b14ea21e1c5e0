package store_test

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"capture/store"
)

// TestLeaseEndsBeforePublishing checks that a reader that does not wait for leases, such as GNU tar, can open a patched file
// as soon as the file has its final name, while the Write is still running.
func TestLeaseEndsBeforePublishing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	if !store.CanPatch(t, filepath.Dir(path)) {
		return
	}
	f, tab := open(t, path), votes(5000, "x")
	write(t, f, tab.View(), store.ReasonStart)
	idleToEnd(t, f, tab.View())
	opened := 0
	store.SetAtRename(func() {
		fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK, 0)
		if err != nil {
			t.Errorf("open the file between the two renames: %v", err)
			return
		}
		unix.Close(fd)
		opened++
	})
	defer store.SetAtRename(func() {})
	put(tab, 7, "y")
	if r := write(t, f, commit(t, tab, func() {}), store.ReasonChange); r.BytesWritten >= r.Manifest.Bytes/2 {
		t.Fatalf("%d of %d bytes written: not patched", r.BytesWritten, r.Manifest.Bytes)
	}
	if opened != 1 {
		t.Errorf("opened %d times", opened)
	}
}
