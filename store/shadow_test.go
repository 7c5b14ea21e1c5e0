package store_test

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/snapshot"
	"capture/store"
)

func init() { store.SetShadowStep(1 << 20) }

// largeFile writes a table of some MB. There is no shadow file yet.
func largeFile(t *testing.T) (f *store.File, path string, tab *snapshot.Table) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "feedback.json")
	f, tab = open(t, path), copied(3000, strings.Repeat("x", 1000), nil)
	write(t, f, tab.View(), store.ReasonStart)
	return f, path, tab
}

// copyShadow calls Idle until the shadow file is complete, but at most limit times. It returns the number of calls, and
// whether Idle has more to do. It passes no View, so Idle does not complete the manifest.
func copyShadow(t *testing.T, f *store.File, limit int) (steps int, more bool) {
	t.Helper()
	for more = true; more && steps < limit; steps++ {
		var r store.Result
		var err error
		if r, more, err = f.Idle(t.Context(), nil); err != nil || r.Warning != "" {
			t.Fatal(err, r.Warning)
		}
	}
	return steps, more
}

// changeRow changes a row near the start, writes and checks the file, and returns the share of the file that was written.
func changeRow(t *testing.T, f *store.File, path string, tab *snapshot.Table, fill string) float64 {
	t.Helper()
	tab.Put(key(7), row(7, 1000, fill))
	tab.Commit(snapshot.Position{LSN: 2})
	n := write(t, f, tab.View(), store.ReasonChange).BytesWritten
	checkPair(t, path)
	if got := unpadded(read(t, path)); string(got) != string(content(t, tab.View())) {
		t.Fatal("the file is not the view")
	}
	return float64(n) / float64(tab.View().Bytes())
}

// TestFirstChangeIsPatched checks that the first change patches a complete shadow file. If the shadow file is still being
// copied, the change rewrites the whole file.
func TestFirstChangeIsPatched(t *testing.T) {
	t.Parallel()
	f, path, tab := largeFile(t)
	can := store.CanPatch(t, filepath.Dir(path))
	before := read(t, path)
	steps, more := copyShadow(t, f, 100)
	if more || can && steps < 3 {
		t.Fatalf("%d steps; more to do: %v", steps, more)
	}
	if can && string(read(t, path+".tmp")) != string(before) {
		t.Error("the shadow file is no copy of the file")
	}
	if again, _ := copyShadow(t, f, 100); again != 1 {
		t.Errorf("%d steps although there is a shadow file", again)
	}
	if share := changeRow(t, f, path, tab, "a"); can && share > 0.1 {
		t.Errorf("the first change wrote %.2f of the file", share)
	}

	f, path, tab = largeFile(t)
	copyShadow(t, f, 2)
	if share := changeRow(t, f, path, tab, "b"); share < 1 {
		t.Errorf("a change during the copy wrote %.2f of the file", share)
	}
	if _, more := copyShadow(t, f, 1); can && more {
		t.Error("a second shadow file is copied")
	}
	if share := changeRow(t, f, path, tab, "c"); can && share > 0.1 {
		t.Errorf("the second change wrote %.2f of the file", share)
	}
}

// TestTemporaryNameHasOneUse checks that capture removes an incomplete shadow file when WriteAhead needs the temporary name,
// and when the File is closed.
func TestTemporaryNameHasOneUse(t *testing.T) {
	t.Parallel()
	f, path, _ := largeFile(t)
	copyShadow(t, f, 2)
	other := copied(2000, strings.Repeat("z", 1000), func(parts []snapshot.Part) { f.WriteAhead(t.Context(), parts) })
	if _, more := copyShadow(t, f, 1); more {
		t.Error("a shadow file is copied while the next version is being written ahead")
	}
	write(t, f, other.View(), store.ReasonChange)
	checkPair(t, path)

	f, path, _ = largeFile(t)
	copyShadow(t, f, 2)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if names := leftovers(t, path); names != nil {
		t.Errorf("left over: %v", names)
	}
	if _, more, err := f.Idle(t.Context(), nil); more || err != nil {
		t.Errorf("Idle after Close: %v, %v", more, err)
	}
}

// TestTouchedShadowIsNotPatched checks that a Write does not patch a shadow file that another program has changed.
func TestTouchedShadowIsNotPatched(t *testing.T) {
	t.Parallel()
	f, path, tab := largeFile(t)
	if !store.CanPatch(t, filepath.Dir(path)) {
		return
	}
	copyShadow(t, f, 100)
	file, err := os.OpenFile(path+".tmp", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := file.WriteAt([]byte("?"), 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if share := changeRow(t, f, path, tab, "a"); share < 1 {
		t.Errorf("%.2f of the file were written", share)
	}
}

// TestShadowOfDamagedFile checks that a damaged feedback.json gets no shadow file, and that the next Write writes the whole
// file, even if no row has changed.
func TestShadowOfDamagedFile(t *testing.T) {
	t.Parallel()
	f, path, tab := largeFile(t)
	if !store.CanPatch(t, filepath.Dir(path)) {
		return
	}
	copyShadow(t, f, 1)
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte("?"), 2<<20); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	for more, warning := true, ""; warning == ""; {
		var r store.Result
		if r, more, err = f.Idle(t.Context(), tab.View()); err != nil {
			t.Fatal(err)
		}
		if warning = r.Damage; warning != "" && (more || !strings.Contains(warning, "SHA-256")) {
			t.Errorf("the warning is %q; more to do: %v", warning, more)
		}
		if warning == "" && !more {
			t.Fatal("a damaged file has a shadow")
		}
	}
	if _, err := os.Stat(path + ".tmp"); err == nil {
		t.Error("the copy of a damaged file is still there")
	}
	if n := write(t, f, tab.View(), store.ReasonInterval).BytesWritten; n < tab.View().Bytes() {
		t.Errorf("%d bytes of a damaged file were written", n)
	}
	checkPair(t, path)
}

// TestIdleEndsWithContext checks that a call of Idle ends early if its context has ended, and that later calls can still do
// the work.
func TestIdleEndsWithContext(t *testing.T) {
	t.Parallel()
	f, path, tab := largeFile(t)
	if !store.CanPatch(t, filepath.Dir(path)) {
		return
	}
	ended, end := context.WithCancel(t.Context())
	end()
	for range 3 {
		if r, more, err := f.Idle(ended, tab.View()); !more || err != nil || r.Warning != "" {
			t.Fatalf("with an ended context: more to do: %v, %v %s", more, err, r.Warning)
		}
	}
	if info, err := os.Stat(path + ".tmp"); err != nil || info.Size() > 0 {
		t.Errorf("an ended context copied %v (%v)", info, err)
	}
	copyShadow(t, f, 100)
	if share := changeRow(t, f, path, tab, "a"); share > 0.1 {
		t.Errorf("the first change wrote %.2f of the file", share)
	}
}
