package capture

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"capture/internal/pgserver"
	"capture/store/manifest"
)

// breakFile makes every write of the file fail: it creates a folder with the name of the temporary file.
func (d *daemon) breakFile() (restore func()) {
	d.t.Helper()
	return breakFile(d.t, d.path)
}

func breakFile(t testing.TB, path string) (restore func()) {
	t.Helper()
	blocker := path + ".tmp"
	if err := os.MkdirAll(filepath.Join(blocker, "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	restore = sync.OnceFunc(func() { os.RemoveAll(blocker) })
	t.Cleanup(restore)
	return restore
}

// TestWritesFail: while the file cannot be written, the old file stays, and Status and a forced flush give the reason. The
// stream continues and confirms its position. Once the file can be written, it gets all changes.
func TestWritesFail(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 10)
	d := start(t, config(t, url))
	d.ready()
	restore := d.breakFile()
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('unflushed')")
	wantWithin(t, 5*time.Second, "to say that the file can't be written", func() { d.notReady("file", d.path) })
	if n := len(d.fileRows()); n != 10 {
		t.Errorf("the old file has %d rows", n)
	}
	if _, err := d.Snapshot(t.Context()); err == nil || !strings.Contains(err.Error(), d.path) {
		t.Errorf("the error of a forced flush: %v", err)
	}
	inserted := queryOne[string](t, conn, "SELECT pg_current_wal_insert_lsn()::text")
	eventually(t, "the position is confirmed", func() error {
		behind := queryOne[int64](t, conn, "SELECT pg_wal_lsn_diff($1::pg_lsn, confirmed_flush_lsn)::bigint FROM pg_replication_slots WHERE database = current_database()", inserted)
		if behind > 0 {
			return fmt.Errorf("%d bytes behind", behind)
		}
		return nil
	})
	restore()
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
	if n := d.said("flush failed; the file stays as it was"); n > 3 {
		t.Errorf("%d log lines about the same error", n)
	}
}

// TestFileRemovedWhileQuiet: somebody removes the file, its manifest, its lock file or its folder while the table does not
// change. capture writes the file again. If capture cannot write the file, Status says so.
func TestFileRemovedWhileQuiet(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 10)
	cfg := config(t, url)
	cfg.intervals.keptCheck = 20 * time.Millisecond
	d := start(t, cfg)
	d.ready()
	folder, manifestPath, lockPath := filepath.Dir(d.path), manifest.Path(d.path), d.path+".lock"
	for _, path := range []string{d.path, manifestPath, lockPath, folder} {
		if err := os.Rename(path, path+".gone"); err != nil { // RemoveAll of the folder would fail if capture writes into it
			t.Fatal(err)
		}
		eventually(t, "the file is written again", func() error {
			var err error
			for _, path := range []string{d.path, manifestPath, lockPath} {
				_, serr := os.Stat(path)
				err = errors.Join(err, serr)
			}
			return err
		})
		d.ready()
		d.flushAndCompare(conn, "votes", "vote_id")
	}
	if n := d.said("feedback.json is not in place; another write is due"); n != 4 {
		t.Errorf("%d log lines about four files", n)
	}
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder, nil, 0o644); err != nil { // a file with the name of the folder keeps capture from creating the folder again
		t.Fatal(err)
	}
	d.notReady("file", folder)
	if err := errors.Join(os.Remove(folder), os.Rename(folder+".away", folder)); err != nil {
		t.Fatal(err)
	}
	d.ready()
}

// TestFileRemovedBeforeStop: the file is removed just before capture stops. capture writes the file again when it stops.
func TestFileRemovedBeforeStop(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 10)
	cfg := config(t, url)
	cfg.intervals.keptCheck = time.Hour
	d := start(t, cfg)
	d.ready()
	if err := os.Remove(d.path); err != nil {
		t.Fatal(err)
	}
	d.stop()
	if n := len(d.fileRows()); n != 10 {
		t.Errorf("the file has %d rows", n)
	}
}

// TestFolderRemoved: the file's folder disappears while capture runs, and comes back. capture reports the missing folder,
// and then writes the file again.
func TestFolderRemoved(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 10)
	d := start(t, config(t, url))
	d.ready()
	folder := filepath.Dir(d.path)
	if err := os.Rename(folder, folder+".away"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder + ".away") })
	// A file in place of the folder keeps capture from creating the folder again.
	if err := os.WriteFile(folder, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('meanwhile')")
	d.notReady("file", folder)
	if err := errors.Join(os.Remove(folder), os.MkdirAll(folder, 0o755)); err != nil {
		t.Fatal(err)
	}
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
}
