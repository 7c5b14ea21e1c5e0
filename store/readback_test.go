package store_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"capture/snapshot"
	"capture/store"
)

// rot flips a bit of the file at path, and keeps the file's modification time.
func rot(t *testing.T, path string, at int) {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	flip(t, path, at)
	if err := os.Chtimes(path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
}

// patchedFile returns a file whose last Write patched its first rows.
func patchedFile(t *testing.T) (*store.File, *snapshot.Table, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f, tab := open(t, path), votes(3000, "a text of some length")
	write(t, f, tab.View(), store.ReasonStart)
	idleToEnd(t, f, tab.View())
	r := write(t, f, commit(t, tab, func() { put(tab, 1, "changed") }), store.ReasonChange)
	if canPatch(t, path) && r.BytesWritten > r.Manifest.Bytes/2 {
		t.Fatalf("it was not patched: %d bytes were written", r.BytesWritten)
	}
	return f, tab, path
}

// canPatch reports whether the file at path can be patched.
func canPatch(t *testing.T, path string) bool { return store.CanPatch(t, filepath.Dir(path)) }

// TestReadBack checks that ReadBack finds a flipped bit in a part of the file that no change rewrites, and that the next
// Write writes the whole file.
func TestReadBack(t *testing.T) {
	t.Parallel()
	f, tab, path := patchedFile(t)
	readBack := func(isDamaged bool) {
		t.Helper()
		if damage, err := f.ReadBack(t.Context()); err != nil || (damage != "") != isDamaged {
			t.Fatalf("the damage is %q, %v", damage, err)
		}
	}
	readBack(false)
	rot(t, path, len(read(t, path))-100)
	// These Writes do not detect the damage: they do not touch the damaged range, and compute the digest from the rows in
	// memory.
	for i := range 4 {
		write(t, f, commit(t, tab, func() { put(tab, i, "changed again") }), store.ReasonChange)
	}
	rot(t, path, len(read(t, path))-50)
	readBack(true)
	r := write(t, f, tab.View(), store.ReasonChange)
	if r.BytesWritten != r.Manifest.Bytes {
		t.Errorf("%d of %d bytes were written", r.BytesWritten, r.Manifest.Bytes)
	}
	checkPair(t, path)
	readBack(false)
}

// TestForcedWriteIsProven checks that a forced Write reads a patched file back, and writes the whole file if it is damaged.
func TestForcedWriteIsProven(t *testing.T) {
	t.Parallel()
	f, tab, path := patchedFile(t)
	if r := write(t, f, tab.View(), store.ReasonForced); r.Damage != "" || r.BytesWritten != 0 {
		t.Errorf("of an intact file the result is %+v", r)
	}
	if !canPatch(t, path) {
		return
	}
	write(t, f, commit(t, tab, func() { put(tab, 1, "once more") }), store.ReasonChange)
	rot(t, path, len(read(t, path))-100)
	r := write(t, f, tab.View(), store.ReasonForced)
	if r.Damage == "" || r.BytesWritten != r.Manifest.Bytes {
		t.Errorf("the result is %+v", r)
	}
	checkPair(t, path)

	// A forced Write patches the shadow file. It must therefore find damage in the shadow file, too.
	write(t, f, commit(t, tab, func() { put(tab, 1, "and again") }), store.ReasonChange)
	idleToEnd(t, f, tab.View())
	rot(t, path+".tmp", len(read(t, path+".tmp"))-100)
	r = write(t, f, commit(t, tab, func() { put(tab, 1, "the last time") }), store.ReasonForced)
	runtime.KeepAlive(tab) // a daemon keeps its table in memory, too
	checkPair(t, path)
	if r.Damage == "" {
		t.Error("a damaged shadow file was patched, and the file was not read back")
	}
}
