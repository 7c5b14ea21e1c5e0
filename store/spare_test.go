package store_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/snapshot"
	"capture/store"
)

func init() { store.SetSpareStep(1 << 20) }

// spareOf is a table of some MB and the file that was written of it.
func spareOf(t *testing.T) (f *store.File, path string, tab *snapshot.Table) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "feedback.json")
	f, tab = open(t, path), copied(3000, strings.Repeat("x", 1000), nil)
	write(t, f, tab.View(), store.ReasonStart)
	return f, path, tab
}

// spare copies until there is a spare, at most so many steps, and says how many there were and whether that was all.
func spare(t *testing.T, f *store.File, most int) (steps int, done bool) {
	t.Helper()
	var err error
	for !done && steps < most {
		if done, err = f.Spare(); err != nil {
			t.Fatal(err)
		}
		steps++
	}
	return steps, done
}

// change changes a row near the start, writes the file, checks it, and says which share of it went to disk.
func change(t *testing.T, f *store.File, path string, tab *snapshot.Table, fill string) float64 {
	t.Helper()
	tab.Put(key(7), row(7, 1000, fill))
	tab.Commit(snapshot.Position{LSN: 2})
	write(t, f, tab.View(), store.ReasonChange)
	checkPair(t, path)
	if got := unpadded(read(t, path)); string(got) != string(content(t, tab.View())) {
		t.Fatal("the file is not the view")
	}
	return float64(f.Wrote()) / float64(tab.View().Bytes())
}

// TestSpare: with a spare the first change is written in its place alone; one that comes while the spare is being made has
// the whole written, as without any.
func TestSpare(t *testing.T) {
	t.Parallel()
	f, path, tab := spareOf(t)
	can := store.CanPatch(t, filepath.Dir(path))
	before := read(t, path)
	steps, done := spare(t, f, 100)
	if !done || can && steps < 3 {
		t.Fatalf("done after %d steps: %v", steps, done)
	}
	if can && string(read(t, path+".tmp")) != string(before) {
		t.Error("the spare is no copy of the file")
	}
	if again, _ := spare(t, f, 100); again != 1 {
		t.Errorf("%d steps for what is there", again)
	}
	if share := change(t, f, path, tab, "a"); can && share > 0.1 {
		t.Errorf("the first change wrote %.2f of the file", share)
	}

	f, path, tab = spareOf(t)
	spare(t, f, 2)
	if share := change(t, f, path, tab, "b"); share < 1 {
		t.Errorf("%.2f of the file were written, of a spare that was not ended", share)
	}
	if steps, done := spare(t, f, 1); can && !done {
		t.Errorf("a second spare is made (%d)", steps)
	}
	if share := change(t, f, path, tab, "c"); can && share > 0.1 {
		t.Errorf("the second change wrote %.2f of the file", share)
	}
}

// TestSpareLeavesNothing: a copy that is not ended goes with the File, and gives way to a copy of the table.
func TestSpareLeavesNothing(t *testing.T) {
	t.Parallel()
	f, path, _ := spareOf(t)
	spare(t, f, 2)
	other := copied(2000, strings.Repeat("z", 1000), func(parts []snapshot.Part) { f.WriteAhead(t.Context(), parts) })
	if _, done := spare(t, f, 1); !done {
		t.Error("a spare is made while the next version is begun")
	}
	write(t, f, other.View(), store.ReasonChange)
	checkPair(t, path)

	f, path, _ = spareOf(t)
	spare(t, f, 2)
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if names := leftovers(t, path); names != nil {
		t.Errorf("left over: %v", names)
	}
	if done, err := f.Spare(); !done || err != nil {
		t.Errorf("closed: %v, %v", done, err)
	}
}

// TestSpareOfDamage: a file whose bytes are not what was written is no spare, and is written anew even where no row changed.
func TestSpareOfDamage(t *testing.T) {
	t.Parallel()
	f, path, tab := spareOf(t)
	if !store.CanPatch(t, filepath.Dir(path)) {
		return
	}
	spare(t, f, 1)
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
	for {
		done, err := f.Spare()
		if err != nil {
			if !done || !strings.Contains(err.Error(), "damaged") {
				t.Errorf("%v, %v", done, err)
			}
			break
		}
		if done {
			t.Fatal("a damaged file is the spare")
		}
	}
	if _, err := os.Stat(path + ".tmp"); err == nil {
		t.Error("what was copied is still there")
	}
	write(t, f, tab.View(), store.ReasonInterval)
	checkPair(t, path)
	if f.Wrote() < tab.View().Bytes() {
		t.Errorf("%d bytes of a damaged file were written", f.Wrote())
	}
}
