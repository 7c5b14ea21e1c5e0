package store_test

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/snapshot"
	"capture/store"
	"capture/store/kept"
	"capture/store/manifest"
)

// incompleteFile writes a large file that has a shadow file, and whose manifest lacks the SHA-256 of the whole file.
func incompleteFile(t *testing.T) (f *store.File, path string, s *stamped) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "feedback.json")
	if !store.CanPatch(t, filepath.Dir(path)) {
		t.Skip("a file that is written whole has the SHA-256 of the whole")
	}
	f, s = open(t, path), newStamped()
	for range 8 { // the first versions are written whole
		write(t, f, s.next(), store.ReasonChange)
		if m := checkPair(t, path); m.SHA256 == "" {
			return f, path, s
		}
	}
	t.Fatal("changes of the first row hash the whole file")
	return nil, "", nil
}

// idle calls f.Idle until no idle work is left, and returns the number of calls.
func idle(t *testing.T, f *store.File, s *stamped) (steps int) {
	t.Helper()
	for more := true; more; steps++ {
		var r store.Result
		var err error
		if r, more, err = f.Idle(t.Context(), s.tab.View()); err != nil || r.Warning != "" {
			t.Fatal(err, r.Warning)
		}
	}
	return steps
}

// TestIdleCompletesManifest checks that Idle adds the SHA-256 of the whole file to the manifest, in several steps, and
// changes nothing else.
func TestIdleCompletesManifest(t *testing.T) {
	t.Parallel()
	f, path, s := incompleteFile(t)
	before, data := checkPair(t, path), read(t, path)
	if steps := idle(t, f, s); steps < 5 || steps > len(data)/testHashPerWrite+2 {
		t.Errorf("%d steps for %d bytes", steps, len(data))
	}
	m := checkPair(t, path)
	if m.SHA256 == "" || m.Blocks != nil || !bytes.Equal(read(t, path), data) {
		t.Fatalf("the completed manifest is %+v", m)
	}
	if m.SHA256, m.Blocks = "", before.Blocks; !bytes.Equal(mustJSON(t, m), mustJSON(t, before)) {
		t.Errorf("the manifest was %+v, and is %+v", before, m)
	}
	if n := idle(t, f, s); n != 1 {
		t.Errorf("%d steps although the manifest is complete", n)
	}
	// Check that Idle also computes the right SHA-256 if a Write changes rows while Idle has hashed only a part of the file.
	write(t, f, s.next(), store.ReasonChange)
	if r, more, err := f.Idle(t.Context(), s.tab.View()); !more || err != nil || r.Manifest.SHA256 != "" {
		t.Errorf("complete after one step: %+v, %v, %v", r, more, err)
	}
	s.tab.Put(key(stampedRows-1), row(stampedRows-1, 10, "z"))
	s.next()
	if r, more, err := f.Idle(t.Context(), s.tab.View()); more || err != nil || r.Manifest.SHA256 != "" {
		t.Errorf("with a View that is not written: %+v, %v, %v", r, more, err)
	}
	write(t, f, s.tab.View(), store.ReasonChange)
	idle(t, f, s)
	if m := checkPair(t, path); m.SHA256 == "" {
		t.Error("the manifest is not complete after a change in between")
	}
}

// TestCompleteUnlessChange checks that a forced write, a regular write and the write at a stop add the SHA-256 to an incomplete
// manifest, even if no row has changed.
func TestCompleteUnlessChange(t *testing.T) {
	t.Parallel()
	for _, reason := range []manifest.Reason{store.ReasonForced, store.ReasonInterval, store.ReasonStop} {
		f, path, s := incompleteFile(t)
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

// TestCompletingFails checks that the manifest on disk still describes the file if Idle cannot replace the manifest. If
// another program has replaced the file, Idle must not touch the manifest.
func TestCompletingFails(t *testing.T) {
	t.Parallel()
	f, path, s := incompleteFile(t)
	tmp := manifest.Path(path) + ".tmp"
	if err := os.MkdirAll(filepath.Join(tmp, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	for more := true; more; {
		_, more, err = f.Idle(t.Context(), s.tab.View())
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
	idle(t, f, s)
	if m := checkPair(t, path); m.SHA256 == "" {
		t.Error("another attempt does not complete it")
	}

	write(t, f, s.next(), store.ReasonChange)
	other := []byte("[\n{\"vote_id\":1}\n]\n")
	if err := os.WriteFile(path+".new", other, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
	before := read(t, manifest.Path(path))
	idle(t, f, s)
	if !bytes.Equal(read(t, path), other) || !bytes.Equal(read(t, manifest.Path(path)), before) {
		t.Error("file or manifest of another program's file changed")
	}
}

// TestFailedWriteForgetsDigest makes a Write fail after it has updated the last version's digest in place, so that the
// digest is now that of the new version. Idle must not put this digest into the manifest of the old version.
func TestFailedWriteForgetsDigest(t *testing.T) {
	t.Parallel()
	f, path, s := incompleteFile(t)
	for range 3 { // until versions are patched; a patch updates the digest in place
		write(t, f, s.next(), store.ReasonChange)
	}
	old := s.tab.View()
	tmp := manifest.Path(path) + ".tmp"
	if err := os.MkdirAll(filepath.Join(tmp, "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	s.tab.Put(key(1), fmt.Appendf(nil, `{"vote_id":1,"comment":"%010d %s"}`, s.n, strings.Repeat("z", 5000+s.n*37%1000))) // the row keeps its length
	s.tab.Commit(snapshot.Position{LSN: 2})
	if _, err := f.Write(s.tab.View(), store.ReasonForced); err == nil {
		t.Fatal("the manifest can't be written, and Write returns no error")
	}
	if err := os.RemoveAll(tmp); err != nil {
		t.Fatal(err)
	}
	for more := true; more; {
		var err error
		if _, more, err = f.Idle(t.Context(), old); err != nil {
			t.Fatal(err)
		}
	}
	checkPair(t, path)
	write(t, f, s.tab.View(), store.ReasonChange)
	idle(t, f, s)
	checkPair(t, path)
}

// TestBlocksShowDamage checks that the next process detects damage in any block if the manifest has only the digest of the
// blocks.
func TestBlocksShowDamage(t *testing.T) {
	t.Parallel()
	f, path, _ := incompleteFile(t)
	f.Close()
	data := read(t, path)
	f = open(t, path)
	if m, ok := f.Existing(); !ok || m.SHA256 != "" || store.Warning(f) != "" {
		t.Errorf("Existing returns %+v, %v", m, ok)
	}
	f.Close()
	for _, at := range []int{0, testBlockBytes, len(data) / 2, len(data) - 1} {
		damaged := bytes.Clone(data)
		damaged[at] ^= 1
		if err := os.WriteFile(path, damaged, 0o644); err != nil {
			t.Fatal(err)
		}
		f = open(t, path)
		if warning := store.Warning(f); !strings.Contains(warning, "SHA-256 of its blocks") {
			t.Errorf("a flipped bit at %d of %d: the warning is %q", at, len(data), warning)
		}
		f.Close()
	}
}

// TestKeptStateIsComplete checks that the manifest of a compressed kept state has the SHA-256 even if the manifest of
// feedback.json lacks it. It also checks that a state that was damaged before it was compressed is marked as damaged, and
// that a file that another program changed is not kept as an ordinary state.
func TestKeptStateIsComplete(t *testing.T) {
	t.Parallel()
	f, path, _ := incompleteFile(t)
	keep := func() kept.State {
		t.Helper()
		if err := f.KeepCurrent(); err != nil {
			t.Fatal(err)
		}
		states := f.Kept().List()
		if len(states) != 1 {
			t.Fatalf("the kept states are %+v", states)
		}
		return states[0]
	}
	keep()
	states, err := f.Kept().Compress(t.Context())
	if err != nil || len(states) != 1 {
		t.Fatalf("compressed %+v, %v", states, err)
	}
	s := states[0]
	data := unzip(t, s.Path)
	if !bytes.Equal(data, read(t, path)) {
		t.Fatalf("the state has %d bytes", len(data))
	}
	m, err := manifest.Read(strings.TrimSuffix(s.Path, ".gz"))
	if err != nil || m.SHA256 != digest(data) || fits(m, data) != nil || s.SHA256 != m.SHA256 || s.Damaged != "" {
		t.Errorf("its manifest is %+v, %v", m, err)
	}
	if err := s.Drop(); err != nil {
		t.Fatal(err)
	}

	flip(t, keep().Path, len(data)/2)
	states, err = f.Kept().Compress(t.Context())
	if err != nil || len(states) != 1 || !strings.Contains(states[0].Damaged, "SHA-256") {
		t.Fatalf("compressed after a flipped bit: %+v, %v", states, err)
	}
	if err := f.KeepCurrent(); err == nil || !strings.Contains(err.Error(), "another program changed it") {
		t.Errorf("of a damaged file the error is %v", err)
	}
}

// flip flips a bit of the file at path.
func flip(t *testing.T, path string, at int) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	b := make([]byte, 1)
	if _, err := file.ReadAt(b, int64(at)); err != nil {
		t.Fatal(err)
	}
	b[0] ^= 1
	if _, err := file.WriteAt(b, int64(at)); err != nil {
		t.Fatal(err)
	}
}

func unzip(t *testing.T, path string) []byte {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	z, err := gzip.NewReader(file)
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func mustJSON(t *testing.T, m manifest.Manifest) []byte {
	t.Helper()
	data, err := m.MarshalJSON()
	if err != nil {
		t.Fatal(err)
	}
	return data
}
