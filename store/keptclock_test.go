package store_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"capture/store"
	"capture/store/kept"
	"capture/store/manifest"
)

// TestKeptUnderWrongClock starts capture several times with a clock that is weeks ahead of the last file. It checks that no
// kept state is dropped for its age before the clock has run steadily for a day.
func TestKeptUnderWrongClock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	write(t, f, votes(100, "x").View(), store.ReasonStart)
	if err := f.KeepCurrent(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	written := time.Now().Add(-40 * 24 * time.Hour).Truncate(time.Second) // time of the last write before the clock was wrong
	makeOlder(t, path, written)
	for run := range 3 {
		f := open(t, path)
		write(t, f, votes(101+run, "x").View(), store.ReasonStart)
		m := checkPair(t, path)
		if late := m.AcceptedAt.Sub(written); late < 0 || late > time.Hour {
			t.Errorf("run %d: the accepted time is %s, and the last file was written at %s", run, m.AcceptedAt, written)
		}
		if _, err := f.Kept().Prune(); err != nil {
			t.Fatal(err)
		}
		if !slices.ContainsFunc(f.Kept().List(), func(s kept.State) bool { return s.Time.Equal(written) }) {
			t.Errorf("run %d: the state of %s is gone", run, written)
		}
		f.Close()
	}
}

// makeOlder changes the time in the manifest of the file at path, and in the file names of its only kept state, to the given
// time.
func makeOlder(t *testing.T, path string, at time.Time) {
	t.Helper()
	m, err := manifest.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	stamp := func(t time.Time) string { return t.UTC().Format("20060102T150405Z") }
	files, err := filepath.Glob(filepath.Join(filepath.Dir(path), "*"+stamp(m.WrittenAt)+"*"))
	if err != nil || len(files) != 2 {
		t.Fatalf("the kept state has the files %q (%v)", files, err)
	}
	for _, name := range files {
		if err := os.Rename(name, strings.Replace(name, stamp(m.WrittenAt), stamp(at), 1)); err != nil {
			t.Fatal(err)
		}
	}
	m.WrittenAt = at
	data, err := m.Encode()
	if err == nil {
		err = os.WriteFile(manifest.Path(path), data, 0o644)
	}
	if err != nil {
		t.Fatal(err)
	}
}
