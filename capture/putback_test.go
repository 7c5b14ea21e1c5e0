package capture

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capture/internal/statefile"
	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
	"capture/store/manifest"
)

// loadPrevious returns a Config.LoadPrevious for the file at path.
func loadPrevious(path string) func(context.Context) (*snapshot.View, manifest.Manifest, error) {
	return func(ctx context.Context) (*snapshot.View, manifest.Manifest, error) {
		return statefile.LoadView(ctx, path)
	}
}

// startWithoutDatabase writes a file of ten rows, and starts a daemon that serves these rows, because no server answers.
func startWithoutDatabase(t *testing.T, check time.Duration) *daemon {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data", "feedback.json")
	tab := snapshot.NewTable()
	tab.Load(&rowjson.Shape{Schema: "public", Table: "votes", Key: []int{0}, Columns: []rowjson.Column{{Name: "vote_id", TypeName: "integer", NotNull: true}}},
		snapshot.Origin{Source: "logical"})
	for id := range 10 {
		tab.Put(binary.BigEndian.AppendUint64(nil, uint64(id)^1<<63), fmt.Appendf(nil, `{"vote_id":%d}`, id))
	}
	if err := tab.Commit(snapshot.Position{LSN: 7}); err != nil {
		t.Fatal(err)
	}
	f, err := store.Open(path, store.Owner{PID: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(tab.View(), store.ReasonStart); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	cfg := config(t, "postgres://nobody@127.0.0.1:1/none?sslmode=disable")
	cfg.intervals.keptCheck, cfg.LoadPrevious = check, loadPrevious(path)
	d := startAt(t, cfg, path)
	eventually(t, "the rows are in memory", func() error {
		if d.View() == nil {
			return fmt.Errorf("status is %+v", d.Status())
		}
		return nil
	})
	return d
}

// pair returns the contents of the file and of its manifest.
func (d *daemon) pair() (string, error) {
	data, err := os.ReadFile(d.path)
	m, merr := os.ReadFile(manifest.Path(d.path))
	_, lerr := os.Stat(d.path + ".lock")
	return string(data) + string(m), errors.Join(err, merr, lerr)
}

// TestFileRemovedWithoutDatabase: the database is unreachable at the start, and somebody removes the file, its manifest, its
// lock file or its folder. The rows may exist only in capture's memory, so capture writes the file again. While capture cannot
// write the file, Status says so.
func TestFileRemovedWithoutDatabase(t *testing.T) {
	t.Parallel()
	d := startWithoutDatabase(t, 20*time.Millisecond)
	before, err := d.pair()
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Dir(d.path)
	inPlace := func(what string) {
		t.Helper()
		eventually(t, "the file is in place again: "+what, func() error {
			if now, err := d.pair(); err != nil || now != before {
				return fmt.Errorf("%w: %s", err, now)
			}
			if f := d.Status().File; f.Error != "" || f.Rows != 10 {
				return fmt.Errorf("the file's status is %+v", f)
			}
			return nil
		})
	}
	for _, path := range []string{d.path, manifest.Path(d.path), d.path + ".lock", folder} {
		if err := os.Rename(path, path+".away"); err != nil { // RemoveAll of the folder would fail if capture writes into it
			t.Fatal(err)
		}
		inPlace(path)
		os.RemoveAll(path + ".away")
	}
	// replaceFolder puts a file in the place of the folder. capture may create the folder again before the file is there.
	replaceFolder := func(away string) {
		t.Helper()
		if err := os.Rename(folder, away); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a file is in the place of the folder", func() error {
			os.RemoveAll(folder)
			return os.WriteFile(folder, nil, 0o644)
		})
	}
	replaceFolder(folder + ".away")
	d.notReady("file", folder, "not a directory")
	if err := os.Remove(folder); err != nil {
		t.Fatal(err)
	}
	inPlace("new folder")
	replaceFolder(folder + ".removed")
	d.notReady("file", folder, "not a directory")
	if err := errors.Join(os.Remove(folder), os.Rename(folder+".away", folder)); err != nil {
		t.Fatal(err)
	}
	inPlace("old folder")
}

// TestNewerFileWithoutDatabase: the database is unreachable at the start, and another capture puts a newer file and manifest
// in place. capture leaves these two files as they are, and Status and the log say what to do. If somebody moves the two files
// away, capture writes its own rows.
func TestNewerFileWithoutDatabase(t *testing.T) {
	t.Parallel()
	d := startWithoutDatabase(t, 20*time.Millisecond)
	own, err := d.pair()
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Read(d.path)
	if err != nil {
		t.Fatal(err)
	}
	data := []byte("[\n{\"vote_id\":10}\n]\n")
	m.Rows, m.Bytes, m.SHA256, m.LSN = 1, int64(len(data)), fmt.Sprintf("%x", sha256.Sum256(data)), "0/8"
	encoded, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	tmp := manifest.Path(d.path) + ".tmp" // the temporary name that another capture process would use, too
	if err := errors.Join(os.WriteFile(tmp, encoded, 0o640), os.WriteFile(d.path+".new", data, 0o640), os.Rename(d.path+".new", d.path)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, manifest.Path(d.path)); err != nil && !errors.Is(err, os.ErrNotExist) { // capture may complete the Write
		t.Fatal(err)
	}
	d.notReady("file", "another program has put a newer feedback.json there (LSN 0/8", "--output", "restart capture")
	eventually(t, "the log says it", func() error {
		if log := d.log.String(); !strings.Contains(log, "another program has put a newer") {
			return errors.New(log)
		}
		return nil
	})
	if now, err := d.pair(); err != nil || now != string(data)+string(encoded) {
		t.Errorf("the newer pair is now %s, %v", now, err)
	}
	if err := errors.Join(os.Rename(d.path, d.path+".away"), os.Remove(manifest.Path(d.path))); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the rows in memory are in place", func() error {
		if now, err := d.pair(); err != nil || now != own || d.Status().File.Error != "" {
			return fmt.Errorf("%w: %s", err, now)
		}
		return nil
	})
}

// TestFileRemovedBeforeStopWithoutDatabase is like TestFileRemovedWithoutDatabase, but the removal happens directly before
// capture stops.
func TestFileRemovedBeforeStopWithoutDatabase(t *testing.T) {
	t.Parallel()
	for _, remove := range []func(d *daemon) string{
		func(d *daemon) string { return d.path },
		func(d *daemon) string { return manifest.Path(d.path) },
		func(d *daemon) string { return filepath.Dir(d.path) },
	} {
		d := startWithoutDatabase(t, time.Hour)
		before, err := d.pair()
		if err != nil {
			t.Fatal(err)
		}
		path := remove(d)
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
		if err := d.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if now, err := d.pair(); err != nil || now != before {
			t.Errorf("%s was removed: %v", path, err)
		}
	}
}

// TestRemovedFileIsNotInMemory: the database is unreachable, and the file is removed before capture has read its rows. Status
// and the error at the stop report that the file is missing and that its rows are not in memory. When the file is back, Status
// shows no error.
func TestRemovedFileIsNotInMemory(t *testing.T) {
	t.Parallel()
	d := startWithoutDatabase(t, 20*time.Millisecond)
	d.previous.state.Store(nil)
	if err := os.Rename(d.path, d.path+".away"); err != nil {
		t.Fatal(err)
	}
	d.notReady("file", "somebody has removed it", "not in memory")
	if err := os.Rename(d.path+".away", d.path); err != nil {
		t.Fatal(err)
	}
	eventually(t, "no error", func() error {
		if text := d.Status().File.Error; text != "" {
			return errors.New(text)
		}
		return nil
	})
	d.stop()
	file, err := store.Open(d.path, store.Owner{PID: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	stopping, err := New(d.cfg, file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.path); err != nil {
		t.Fatal(err)
	}
	if err := stopping.flusher.finalFlush(); err == nil || !strings.Contains(err.Error(), "somebody has removed it") {
		t.Errorf("the error of the stop is %v", err)
	}
}
