package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/store"
)

// TestDiskBytes checks that DiskBytes counts the files that belong to feedback.json, and no other files in the folder.
func TestDiskBytes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "feedback.json")
	for _, name := range []string{"notes.txt", "feedback-old.json.gz", "a/b/c.json"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, 1<<20), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	f, tab := open(t, path), votes(3000, "x")
	write(t, f, tab.View(), store.ReasonStart)
	idleToEnd(t, f, tab.View())
	write(t, f, commit(t, tab, tab.Truncate), store.ReasonChange)
	want := f.Kept().List()[0].DiskBytes
	for _, name := range names(t, dir) {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && info.Mode().IsRegular() && info.Size() < 1<<20 &&
			!strings.HasPrefix(name, "feedback-") {
			want += info.Size()
		}
	}
	if got := f.DiskBytes(); got != want {
		t.Errorf("%d bytes, not %d; the folder has %q", got, want, names(t, dir))
	}
}
