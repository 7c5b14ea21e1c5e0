package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"capture/snapshot"
	"capture/store"
	"capture/store/manifest"
	"capture/store/retention"
)

// TestPutBack checks that CheckInPlace notices each way in which readers can lose the file of an earlier run before the first
// Write. It also checks that PutBack restores this file and its manifest, and that what somebody else has put in their place is
// kept.
func TestPutBack(t *testing.T) {
	long := strings.Repeat("x", 1000) // long enough for a file that is patched and has padding
	otherPair := filepath.Join(t.TempDir(), "feedback.json")
	other := open(t, otherPair)
	write(t, other, votes(50, "other").View(), store.ReasonStart)
	for what, test := range map[string]struct {
		change  func(path string) error
		same    bool   // whether path must still name the same file afterwards
		damaged string // content that must be kept as a damaged file
		kept    int    // number of rows of the kept state; 0 if there must be none
	}{
		"the file is removed":        {change: os.Remove},
		"the manifest is removed":    {same: true, change: func(path string) error { return os.Remove(manifest.Path(path)) }},
		"the manifest is replaced":   {same: true, change: func(path string) error { return replaceFile(manifest.Path(path), "{}") }},
		"the file is unreadable":     {same: true, change: func(path string) error { return os.Chmod(path, 0) }},
		"both are removed":           {change: func(path string) error { return errors.Join(os.Remove(path), os.Remove(manifest.Path(path))) }},
		"the lock file is removed":   {same: true, change: func(path string) error { return os.Remove(path + ".lock") }},
		"the folder is removed":      {change: func(path string) error { return os.RemoveAll(filepath.Dir(path)) }},
		"the lock file is replaced":  {same: true, change: func(path string) error { return replaceFile(path+".lock", "") }},
		"another program's file":     {change: func(path string) error { return replaceFile(path, "[7]\n") }, damaged: "[7]\n"},
		"the file is truncated":      {change: func(path string) error { return os.Truncate(path, 2) }, damaged: "[\n"},
		"a file with its manifest":   {change: func(path string) error { return copyPair(otherPair, path) }, kept: 50},
		"the same file, but copied":  {change: func(path string) error { return replaceFile(path, string(read(t, path))) }},
		"a copy, and all is removed": {change: func(path string) error { return errors.Join(os.Remove(path+".lock"), copyPair(path, path)) }},
	} {
		path := filepath.Join(t.TempDir(), "new", "feedback.json")
		f := open(t, path)
		for _, text := range []string{"x", long} {
			write(t, f, votes(100, text).View(), store.ReasonStart)
		}
		f.Close()
		f = open(t, path)
		before, info := checkPair(t, path), stat(t, path)
		keepsInode, err := os.Open(path) // so that no other file gets the inode of a removed file
		if err != nil {
			t.Fatal(err)
		}
		defer keepsInode.Close()
		if problem := f.CheckInPlace(); problem != "" {
			t.Errorf("before %s: %s", what, problem)
		}
		if err := test.change(path); err != nil {
			t.Fatal(err)
		}
		if f.CheckInPlace() == "" {
			t.Errorf("nobody notices: %s", what)
		}
		v := votes(100, long).View()
		r, err := f.PutBack(v, before)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		after := checkPair(t, path)
		after.Bytes, after.SHA256 = before.Bytes, before.SHA256 // checkPair has checked them
		if !reflect.DeepEqual(after, before) {
			t.Errorf("%s: the manifest is %+v, was %+v", what, after, before)
		}
		if same := os.SameFile(stat(t, path), info); same != test.same {
			t.Errorf("%s: the file itself has stayed: %t", what, same)
		}
		if problem := f.CheckInPlace(); problem != "" {
			t.Errorf("after %s: %s", what, problem)
		}
		damaged, _ := filepath.Glob(path + ".damaged-*")
		if test.damaged == "" && damaged != nil || test.damaged != "" && (len(damaged) != 1 || string(read(t, damaged[0])) != test.damaged) {
			t.Errorf("%s: kept as damaged: %v", what, damaged)
		}
		if r.Kept == nil && test.kept > 0 || r.Kept != nil && r.Kept.Rows != test.kept {
			t.Errorf("%s: kept is %+v", what, r.Kept)
		}
		// After PutBack, the file can be loaded, and the next Write finds that the file equals the table.
		tab := snapshot.NewTable()
		if err := loadInto(t.Context(), f, tab); err != nil {
			t.Errorf("%s: %v", what, err)
			continue
		}
		if r := write(t, f, tab.View(), store.ReasonStart); r.BytesWritten != 0 || r.Kept != nil {
			t.Errorf("%s: the first Write: %+v", what, r)
		}
	}
}

// reopened returns a File with 100 votes that an earlier run has written, its path and its manifest.
func reopened(t *testing.T) (path string, f *store.File, m manifest.Manifest) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "feedback.json")
	f = open(t, path)
	write(t, f, votes(100, "x").View(), store.ReasonStart)
	f.Close()
	f = open(t, path)
	return path, f, checkPair(t, path)
}

// TestPutBackBeforeLoss checks that PutBack does not hide a loss from the first Write.
func TestPutBackBeforeLoss(t *testing.T) {
	path, f, m := reopened(t)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := f.PutBack(votes(100, "x").View(), m); err != nil {
		t.Fatal(err)
	}
	if r := write(t, f, votes(2, "x").View(), store.ReasonStart); r.Kept == nil || r.Kept.Loss == nil || r.Kept.Rows != 100 {
		t.Errorf("kept is %+v", r.Kept)
	}
}

// TestPutBackRefusesNewerPair: the database is unreachable, and another program has put a pair with five more votes in
// place. If this pair is newer, perhaps no other file has these votes. PutBack must then leave the pair as it is, even if
// the policy keeps no ordinary states.
func TestPutBackRefusesNewerPair(t *testing.T) {
	for what, test := range map[string]struct {
		change  func(m *manifest.Manifest) // changes a copy of the File's manifest into the manifest of the other pair
		refused bool
	}{
		"later position":                 {func(m *manifest.Manifest) { m.LSN = "0/16B3749" }, true},
		"later position, earlier clock":  {func(m *manifest.Manifest) { m.LSN, m.WrittenAt = "1/0", m.WrittenAt.Add(-time.Hour) }, true},
		"same position, later clock":     {func(m *manifest.Manifest) { m.WrittenAt = m.WrittenAt.Add(time.Second) }, true},
		"later timeline":                 {func(m *manifest.Manifest) { m.Timeline, m.LSN = 2, "0/16B0000" }, true},
		"restored database, later clock": {func(m *manifest.Manifest) { m.SystemID, m.LSN, m.WrittenAt = "8", "0/1", m.WrittenAt.Add(time.Second) }, true},
		"earlier position, later clock":  {func(m *manifest.Manifest) { m.LSN, m.WrittenAt = "0/16B0000", m.WrittenAt.Add(time.Hour) }, false},
		"same position, earlier clock":   {func(m *manifest.Manifest) { m.WrittenAt = m.WrittenAt.Add(-time.Second) }, false},
		"another table":                  {func(m *manifest.Manifest) { m.Table.Name, m.LSN = "others", "1/0" }, false},
	} {
		path, f, m := reopened(t)
		m.Timeline = 1
		f.Kept().SetPolicy(retention.Policy{})
		newer := filepath.Join(t.TempDir(), "feedback.json")
		write(t, open(t, newer), votes(105, "x").View(), store.ReasonStart)
		other := checkPair(t, newer)
		other.WrittenAt, other.Timeline = m.WrittenAt, 1
		test.change(&other)
		data, err := other.Encode()
		if err := errors.Join(err, os.WriteFile(manifest.Path(newer), data, 0o644), copyPair(newer, path)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			r, err := f.PutBack(votes(100, "x").View(), m)
			if refused := err != nil && strings.Contains(err.Error(), "newer"); refused != test.refused || err != nil && !refused {
				t.Errorf("%s: %v", what, err)
			}
			if states := f.Kept().List(); test.refused && (r.Kept != nil || len(states) != 0 || checkPair(t, path).Rows != 105 || f.CheckInPlace() == "") {
				t.Errorf("%s: kept is %+v, and the file has %d rows", what, states, checkPair(t, path).Rows)
			}
			if !test.refused {
				break
			}
		}
		states := f.Kept().List()
		if !test.refused {
			if checkPair(t, path).Rows != 100 || len(states) != 1 || states[0].Rows != 105 || states[0].Loss != nil {
				t.Errorf("%s: the file has %d rows, and the kept states are %+v", what, checkPair(t, path).Rows, states)
			}
			continue
		}
		if err := errors.Join(os.Rename(path, path+".x"), os.Rename(manifest.Path(path), path+".y")); err != nil {
			t.Fatal(err)
		}
		if _, err := f.PutBack(votes(100, "x").View(), m); err != nil || checkPair(t, path).Rows != 100 || f.CheckInPlace() != "" {
			t.Errorf("%s, after the newer pair was moved away: %v, %s", what, err, f.CheckInPlace())
		}
	}
}

// TestWriteAfterNewerPair: PutBack has refused to replace a newer pair, and then the database is back. The Write compares the rows
// with those of the newer pair, and keeps it under its own manifest.
func TestWriteAfterNewerPair(t *testing.T) {
	path, f, m := reopened(t)
	tab := snapshot.NewTable()
	newer := filepath.Join(t.TempDir(), "feedback.json")
	write(t, open(t, newer), votes(105, "x").View(), store.ReasonStart)
	if err := errors.Join(loadInto(t.Context(), f, tab), copyPair(newer, path)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.PutBack(tab.View(), m); err == nil {
		t.Fatal("PutBack has replaced the newer pair")
	}
	r := write(t, f, tab.View(), store.ReasonStart)
	if r.Kept == nil || r.Kept.Rows != 105 || r.Kept.Damaged != "" || checkPair(t, path).Rows != 100 || f.CheckInPlace() != "" {
		t.Errorf("kept is %+v", r.Kept)
	}
}

// TestPutBackAfterDropHorizon calls PutBack just when the database comes back. The source has loaded the rows and then found
// that they may be wrong, so the new manifest must have no horizon.
func TestPutBackAfterDropHorizon(t *testing.T) {
	path, f, m := reopened(t)
	tab := snapshot.NewTable()
	if err := errors.Join(loadInto(t.Context(), f, tab), f.DropHorizon(tab.View()), os.Remove(manifest.Path(path))); err != nil {
		t.Fatal(err)
	}
	m.Horizon = &manifest.Horizon{}
	if _, err := f.PutBack(votes(100, "x").View(), m); err != nil {
		t.Fatal(err)
	}
	if after := checkPair(t, path); after.Horizon != nil {
		t.Error("the manifest has a horizon again")
	}
}

// TestFailedPutBackIsRepeated: PutBack has replaced the file, but not the manifest. CheckInPlace must report this, and the next
// PutBack must complete the pair.
func TestFailedPutBackIsRepeated(t *testing.T) {
	path, f, m := reopened(t)
	if err := errors.Join(os.Remove(path), os.Remove(manifest.Path(path)), os.MkdirAll(filepath.Join(manifest.Path(path), "x"), 0o750)); err != nil {
		t.Fatal(err)
	}
	if _, err := f.PutBack(votes(100, "x").View(), m); err == nil {
		t.Fatal("a folder was replaced by the manifest")
	}
	if f.CheckInPlace() == "" {
		t.Error("nobody notices that the manifest is missing")
	}
	if err := os.RemoveAll(manifest.Path(path)); err != nil {
		t.Fatal(err)
	}
	if f.CheckInPlace() == "" {
		t.Error("nobody notices that the manifest is missing, after the folder was removed")
	}
	if _, err := f.PutBack(votes(100, "x").View(), m); err != nil {
		t.Fatal(err)
	}
	checkPair(t, path)
	if problem := f.CheckInPlace(); problem != "" {
		t.Error(problem)
	}
}

// replaceFile replaces the file at path by another file.
func replaceFile(path, content string) error {
	return errors.Join(os.WriteFile(path+".x", []byte(content), 0o644), os.Rename(path+".x", path))
}

// copyPair replaces the file at path and its manifest by copies of another file (from) and its manifest.
func copyPair(from, path string) error {
	data, err := os.ReadFile(from)
	m, merr := os.ReadFile(manifest.Path(from))
	return errors.Join(err, merr, replaceFile(path, string(data)), replaceFile(manifest.Path(path), string(m)))
}

func stat(t *testing.T, path string) os.FileInfo {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}
