package store_test

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/store"
)

// partial is a large file whose manifest has no SHA-256 of the whole.
func partial(t *testing.T) (f *store.File, path string, s *stamped) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "feedback.json")
	if !store.CanPatch(t, filepath.Dir(path)) {
		t.Skip("a file that is written whole has a whole SHA-256")
	}
	f, s = open(t, path), newStamped()
	for range 8 { // the first ones are written whole
		write(t, f, s.next(), store.ReasonChange)
		if m := checkPair(t, path); m.SHA256 == "" {
			return f, path, s
		}
	}
	t.Fatal("changes of the first row have the whole file hashed")
	return nil, "", nil
}

// complete takes steps until the last one.
func complete(t *testing.T, f *store.File, s *stamped) (steps int) {
	t.Helper()
	for done := false; !done; steps++ {
		var err error
		if _, done, err = f.Complete(s.tab.View()); err != nil {
			t.Fatal(err)
		}
	}
	return steps
}

// TestComplete: the SHA-256 of the whole comes later, step by step, and changes nothing else.
func TestComplete(t *testing.T) {
	t.Parallel()
	f, path, s := partial(t)
	before, data := checkPair(t, path), read(t, path)
	if steps := complete(t, f, s); steps < 5 || steps > len(data)/testCompleteBytes+1 {
		t.Errorf("%d steps for %d bytes", steps, len(data))
	}
	m := checkPair(t, path)
	if m.SHA256 == "" || m.Blocks != nil || !bytes.Equal(read(t, path), data) {
		t.Fatalf("complete, the manifest is %+v", m)
	}
	if m.SHA256, m.Blocks = "", before.Blocks; !bytes.Equal(mustJSON(t, m), mustJSON(t, before)) {
		t.Errorf("it was %+v, and is %+v", before, m)
	}
	if n := complete(t, f, s); n != 1 {
		t.Errorf("what is complete takes %d steps", n)
	}
	// A change in the midst of it: what was hashed before the change counts.
	write(t, f, s.next(), store.ReasonChange)
	if _, done, err := f.Complete(s.tab.View()); done || err != nil {
		t.Errorf("one step is all: %v, %v", done, err)
	}
	s.tab.Put(key(stampedRows-1), row(stampedRows-1, 10, "z"))
	s.next()
	if _, done, err := f.Complete(s.tab.View()); !done || err != nil {
		t.Errorf("of what is not written there are more steps, %v", err)
	}
	write(t, f, s.tab.View(), store.ReasonChange)
	complete(t, f, s)
	if m := checkPair(t, path); m.SHA256 == "" {
		t.Error("the manifest is not complete after a change in between")
	}
}

// TestCompleteAtOnce: for any reason but a change the manifest is complete, whether anything has changed or not.
func TestCompleteAtOnce(t *testing.T) {
	t.Parallel()
	for _, reason := range []store.Reason{store.ReasonForced, store.ReasonInterval, store.ReasonStop} {
		f, path, s := partial(t)
		write(t, f, s.tab.View(), reason)
		if m := checkPair(t, path); m.SHA256 == "" {
			t.Errorf("%s, no change: no SHA-256", reason)
		}
		write(t, f, s.next(), store.ReasonChange)
		write(t, f, s.next(), reason)
		if m := checkPair(t, path); m.SHA256 == "" {
			t.Errorf("%s, a change: no SHA-256", reason)
		}
	}
}

// TestCompleteFails: where the manifest can't be replaced, the one that is there stays true; another's file is let be.
func TestCompleteFails(t *testing.T) {
	t.Parallel()
	f, path, s := partial(t)
	tmp := store.ManifestPath(path) + ".tmp"
	if err := os.MkdirAll(filepath.Join(tmp, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	for done := false; !done; {
		_, done, err = f.Complete(s.tab.View())
	}
	if err == nil || !strings.Contains(err.Error(), "complete the manifest of feedback.json") {
		t.Errorf("the error is %v", err)
	}
	if m := checkPair(t, path); m.SHA256 != "" {
		t.Errorf("the manifest is %+v", m)
	}
	if err := os.RemoveAll(tmp); err != nil {
		t.Fatal(err)
	}
	complete(t, f, s)
	if m := checkPair(t, path); m.SHA256 == "" {
		t.Error("tried again, it does not work")
	}

	write(t, f, s.next(), store.ReasonChange)
	other := []byte("[\n{\"vote_id\":1}\n]\n")
	if err := os.WriteFile(path+".new", other, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	before := read(t, store.ManifestPath(path))
	complete(t, f, s)
	if !bytes.Equal(read(t, path), other) || !bytes.Equal(read(t, store.ManifestPath(path)), before) {
		t.Error("another's file is described")
	}
}

// TestPartialFound: the next process takes a file by its blocks, and sees damage in each of them.
func TestPartialFound(t *testing.T) {
	t.Parallel()
	f, path, _ := partial(t)
	f.Close()
	data := read(t, path)
	f = open(t, path)
	if m, ok := f.Found(); !ok || m.SHA256 != "" || f.Note() != "" {
		t.Errorf("found %+v, %v", m, ok)
	}
	f.Close()
	for _, at := range []int{0, testBlockBytes, len(data) / 2, len(data) - 1} {
		spoilt := bytes.Clone(data)
		spoilt[at] ^= 1
		if err := os.WriteFile(path, spoilt, 0o644); err != nil {
			t.Fatal(err)
		}
		f = open(t, path)
		if note := f.Note(); !strings.Contains(note, "SHA-256 of its blocks") {
			t.Errorf("a flipped bit at %d of %d: %q", at, len(data), note)
		}
		f.Close()
	}
}

// TestPartialGeneration: a generation's manifest is complete, and it is of what was written.
func TestPartialGeneration(t *testing.T) {
	t.Parallel()
	f, path, _ := partial(t)
	name, err := f.KeepGeneration(t.Context(), store.Retention{Count: 1})
	if err != nil {
		t.Fatal(err)
	}
	zipped, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer zipped.Close()
	z, err := gzip.NewReader(zipped)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil || !bytes.Equal(data, read(t, path)) {
		t.Fatalf("the generation has %d bytes, %v", len(data), err)
	}
	m, err := store.ReadManifest(strings.TrimSuffix(name, ".gz"))
	if err != nil || m.SHA256 != digest(data) || fits(m, data) != nil {
		t.Errorf("its manifest is %+v, %v", m, err)
	}
	spoilt := read(t, path)
	spoilt[len(spoilt)/2] ^= 1
	if err := os.WriteFile(path, spoilt, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := f.KeepGeneration(t.Context(), store.Retention{Count: 1}); err == nil || !strings.Contains(err.Error(), "another program changed it") {
		t.Errorf("of a spoilt file it says %v", err)
	}
}

func mustJSON(t *testing.T, m store.Manifest) []byte {
	t.Helper()
	data, err := m.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return data
}
