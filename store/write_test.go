package store_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
	"capture/store/manifest"
)

func TestWrite(t *testing.T) {
	for _, n := range []int{0, 1, 1000, 20_000} { // no rows, one chunk, several chunks, enough bytes to start writeback
		path := filepath.Join(t.TempDir(), "data", "fallback", "feedback.json")
		v := votes(n, strings.Repeat("x", 500)).View()
		f := open(t, path)
		if store.Warning(f) != "" {
			t.Error("a warning about an empty folder")
		}
		m := write(t, f, v, store.ReasonStart).Manifest
		data := read(t, path)
		if !bytes.Equal(unpadded(data), content(t, v)) {
			t.Fatalf("%d rows: the file is not the view", n)
		}
		if room := int64(len(data)) - v.Bytes(); v.Bytes() < testPatchFrom && room > 0 || room > v.Bytes()/32 {
			t.Errorf("%d rows: the file of %d bytes has %d of padding", n, len(data), room)
		}
		if got := checkPair(t, path); got.SHA256 != m.SHA256 || got.Rows != n || got.Bytes != int64(len(data)) {
			t.Fatalf("the manifest on disk is not the one that was returned: %+v", got)
		}
		if names := leftovers(t, path); names != nil {
			t.Errorf("left over: %v", names)
		}
	}
}

func TestManifest(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	write(t, open(t, path), votes(2, "x").View(), store.ReasonChange)
	text := read(t, filepath.Join(filepath.Dir(path), "feedback.manifest.json"))
	if !bytes.HasPrefix(text, []byte("{\n  \"format\": 1,\n")) || !bytes.HasSuffix(text, []byte("}\n")) {
		t.Errorf("not indented, or no newline at its end: %s", text)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]any{
		"lsn": "0/16B3748", "commit_time": "2026-11-23T16:00:00.500000Z", "reason": "change", "written_by": "capture 1.2.3",
		"source": "logical", "database": "app", "system_id": "7300000000000000001", "server_version": "15.1", "rows": 2.0,
	} {
		if m[name] != want {
			t.Errorf("%s is %v, not %v", name, m[name], want)
		}
	}
	if !bytes.Contains(text, []byte(`"default": "'<none>'"`)) || !bytes.Contains(text, []byte(`"name": "votes"`)) {
		t.Errorf("columns or table are missing: %s", text)
	}
	if _, err := time.Parse("2006-01-02T15:04:05.000000Z", m["written_at"].(string)); err != nil {
		t.Error(err)
	}

	unknown := snapshot.NewTable()
	unknown.Load(&rowjson.Shape{Schema: "public", Table: "votes"}, snapshot.Origin{Source: "poll"})
	unknown.Commit(snapshot.Position{})
	path = filepath.Join(t.TempDir(), "feedback.json")
	write(t, open(t, path), unknown.View(), store.ReasonStart)
	text = read(t, manifest.Path(path))
	if bytes.Contains(text, []byte("lsn")) || bytes.Contains(text, []byte("commit_time")) {
		t.Errorf("the manifest has a position that the source does not know: %s", text)
	}
	if got := manifest.Path("a/x.json"); got != "a/x.manifest.json" {
		t.Errorf("ManifestPath: %s", got)
	}
	if _, err := manifest.Read("nowhere/x.json"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("ReadManifest of nothing: %v", err)
	}
}

// TestUnchangedRows checks that a Write without changed rows rewrites the file only if another program has touched it.
func TestUnchangedRows(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	tab := votes(10, "x")
	write(t, f, tab.View(), store.ReasonStart)
	inode := func() os.FileInfo {
		info, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	first := inode()
	write(t, f, tab.View(), store.ReasonInterval)
	tab.Advance(snapshot.Position{LSN: 0x16B3800})
	write(t, f, tab.View(), store.ReasonInterval)
	tab.Load(tab.View().Shape(), tab.View().Origin()) // a resync that finds no change
	for i := range 10 {
		put(tab, i, "x")
	}
	tab.Commit(snapshot.Position{LSN: 0x16B3800})
	write(t, f, tab.View(), store.ReasonInterval)
	if !os.SameFile(first, inode()) {
		t.Error("an unchanged file was written again")
	}
	if m := checkPair(t, path); m.Reason != store.ReasonInterval || m.LSN != "0/16B3800" {
		t.Errorf("the manifest was not replaced: %+v", m)
	}

	for what, damage := range map[string]func() error{
		"edited": func() error { return os.WriteFile(path, []byte("[]\n"), 0o644) },
		"edited, of the same length": func() error {
			file, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer file.Close()
			_, err = file.WriteAt([]byte("?"), 20)
			return err
		},
		"removed": func() error { return os.Remove(path) },
		"copied": func() error {
			if err := os.Rename(path, path+".x"); err != nil {
				return err
			}
			return os.WriteFile(path, []byte("{}"), 0o644)
		},
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		write(t, f, tab.View(), store.ReasonInterval)
		if !bytes.Equal(read(t, path), content(t, tab.View())) {
			t.Errorf("%s: not written again", what)
		}
		checkPair(t, path)
	}

	put(tab, 3, "y")
	tab.Commit(snapshot.Position{})
	write(t, f, tab.View(), store.ReasonChange)
	if !bytes.Equal(read(t, path), content(t, tab.View())) {
		t.Error("a change of the same length was not written")
	}
}

func TestModeIsPreserved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	write(t, f, votes(1, "x").View(), store.ReasonStart)
	if err := os.Chmod(path, 0o604); err != nil {
		t.Fatal(err)
	}
	write(t, f, votes(2, "x").View(), store.ReasonStart)
	if info, err := os.Lstat(path); err != nil || info.Mode() != 0o604 {
		t.Errorf("the mode changed: %v, %v", info.Mode(), err)
	}
}

func TestFolderRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "feedback.json")
	f := open(t, path)
	tab := votes(10, "x")
	for range 3 {
		write(t, f, tab.View(), store.ReasonChange)
		checkPair(t, path)
		if err := os.RemoveAll(filepath.Dir(filepath.Dir(path))); err != nil {
			t.Fatal(err)
		}
	}
	write(t, f, tab.View(), store.ReasonChange)
	checkPair(t, path)
	if _, err := store.Open(path, owner); !errors.As(err, new(*store.LockedError)) {
		t.Errorf("opened a second time, in the new folder: %v", err)
	}
}

// TestCheckInPlace checks that CheckInPlace notices each way in which readers can lose the file, and that the next Write puts
// the file in place again.
func TestCheckInPlace(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a", "b", "feedback.json")
	f := open(t, path)
	if problem := f.CheckInPlace(); problem != "" {
		t.Errorf("before the first Write: %s", problem)
	}
	tab := votes(10, "x")
	for what, change := range map[string]func() error{
		"the file is removed":        func() error { return os.Remove(path) },
		"the file is replaced":       func() error { return replaceFile(path, "[]\n") },
		"the file is truncated":      func() error { return os.Truncate(path, 0) },
		"the manifest is removed":    func() error { return os.Remove(manifest.Path(path)) },
		"the manifest is replaced":   func() error { return replaceFile(manifest.Path(path), string(read(t, manifest.Path(path)))) },
		"the manifest is truncated":  func() error { return os.Truncate(manifest.Path(path), 0) },
		"the file is unreadable":     func() error { return os.Chmod(path, 0o040) },
		"its manifest is unreadable": func() error { return os.Chmod(manifest.Path(path), 0) },
		"the lock file is removed":   func() error { return os.Remove(path + ".lock") },
		"the lock file is replaced":  func() error { return replaceFile(path+".lock", "[]\n") },
		"the folder is removed":      func() error { return os.RemoveAll(filepath.Dir(filepath.Dir(path))) },
		"the folder is replaced": func() error {
			folder := filepath.Dir(path)
			return errors.Join(os.Rename(folder, folder+".x"), os.Mkdir(folder, 0o755))
		},
	} {
		write(t, f, tab.View(), store.ReasonChange)
		checkPair(t, path)
		if problem := f.CheckInPlace(); problem != "" {
			t.Errorf("before %s: %s", what, problem)
		}
		if err := change(); err != nil {
			t.Fatal(err)
		}
		if f.CheckInPlace() == "" {
			t.Errorf("nobody notices that %s", what)
		}
	}
}

func TestPathIsNotUsable(t *testing.T) {
	dir := t.TempDir()
	if _, err := store.Open(dir, owner); err == nil || !strings.Contains(err.Error(), "not a regular file") {
		t.Errorf("a folder as the file: %v", err)
	}
	plain := filepath.Join(dir, "plain")
	if err := os.WriteFile(plain, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Open(filepath.Join(plain, "feedback.json"), owner); err == nil || !strings.Contains(err.Error(), plain) {
		t.Errorf("a file as the folder: %v", err)
	}
	f := open(t, filepath.Join(dir, "feedback.json"))
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(votes(1, "x").View(), store.ReasonStop); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Write after Close: %v", err)
	}
}

// BenchmarkWrite changes a row of a file of about 100 MB.
func BenchmarkWrite(b *testing.B) {
	f, err := store.Open(filepath.Join(b.TempDir(), "feedback.json"), owner)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	tab := votes(33_000, strings.Repeat("x", 3000))
	b.SetBytes(tab.View().Bytes())
	for b.Loop() {
		put(tab, 1, "changed")
		tab.Commit(snapshot.Position{})
		if _, err := f.Write(tab.View(), store.ReasonChange); err != nil {
			b.Fatal(err)
		}
	}
}
