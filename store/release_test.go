package store_test

import (
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"capture/snapshot"
	"capture/store"
)

// TestWriteReleasesRows writes a View after the Table has replaced all its rows. It checks that Write frees the rows of the
// View while it writes the file, not only at the end.
func TestWriteReleasesRows(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "feedback.json"))
	const rows, length = 1000, 4000
	tab := votes(rows, strings.Repeat("x", length))
	view := tab.View()
	for id := range rows {
		put(tab, id, strings.Repeat("y", length))
	}
	tab.Commit(snapshot.Position{LSN: 1})
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before, after := heap(), uint64(0)
	store.SetAtRename(func() { after = heap() })
	defer store.SetAtRename(func() {})
	write(t, f, view, store.ReasonStart)
	if freed := int64(before) - int64(after); freed < rows*length/2 {
		t.Errorf("of %d bytes that only the written View has, %d were freed by the end of the Write", rows*length, freed)
	}
	runtime.KeepAlive(tab)
}
