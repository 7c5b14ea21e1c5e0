package capture

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/busy"
	"capture/internal/pgserver"
	"capture/store/manifest"
)

// restartable fills a database with 400 votes, and lets a daemon with this source follow them through some changes. It returns
// the stopped daemon's configuration, a connection to the database, and the path of the file that the daemon has left.
func restartable(t *testing.T, source, url string) (cfg Config, conn *pgx.Conn, path string) {
	t.Helper()
	conn = connect(t, url)
	table(t, conn, 400)
	// With the notify source, the horizon of the first copy is the oldest open transaction of the cluster. If that
	// transaction were older than those that inserted these votes, the next run would read all votes again.
	next := queryOne[int64](t, conn, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8")
	eventually(t, "the transactions of other tests end", func() error {
		if oldest := queryOne[int64](t, conn, "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::int8"); oldest < next {
			return fmt.Errorf("transaction %d is open", oldest)
		}
		return nil
	})
	cfg = resyncing(config(t, url))
	cfg.Source, path = source, filepath.Join(t.TempDir(), "feedback.json")
	cfg.pageBytes = 4 << 10
	d := startAt(t, cfg, path)
	d.ready()
	exec(t, conn, "UPDATE votes SET comment = 'streamed' WHERE vote_id <= 30")
	d.flushAndCompare(conn, "votes", "vote_id")
	d.stopDurably(conn)
	return cfg, conn, path
}

// stopDurably stops the daemon once the manifest has a horizon.
func (d *daemon) stopDurably(conn *pgx.Conn) {
	d.t.Helper()
	exec(d.t, conn, "CHECKPOINT") // a horizon requires that the WAL is on disk; without commits, the server may write it late
	eventually(d.t, "a horizon in the manifest", func() error {
		m, err := manifest.Read(d.path)
		if err == nil && m.Horizon == nil {
			err = fmt.Errorf("there is none for %d rows", m.Rows)
		}
		return err
	})
	if err := d.stop(); err != nil {
		d.t.Fatal(err)
	}
}

// startAgain starts a daemon with the file that an earlier daemon has left. It returns the daemon and its first read of the
// table.
func startAgain(t *testing.T, cfg Config, path string) (*daemon, readLine) {
	t.Helper()
	d := startAt(t, cfg, path)
	d.ready()
	return d, d.loggedReads()[0]
}

// TestRestartTransfersChanges: a daemon that starts with the file of an earlier run transfers only the rows that have changed
// since that run.
func TestRestartTransfersChanges(t *testing.T) {
	if testing.Short() {
		t.Skip("restarts daemons of each source")
	}
	t.Parallel()
	for _, source := range sourceKinds {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			cfg, conn, path := restartable(t, source, pgserver.Database(t))
			before, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			d, r := startAgain(t, cfg, path)
			if r.Message != "resynced" || r.Rows != 400 || r.Changed > 30 || r.Deleted != 0 || d.said("loaded the rows of the file") != 1 {
				t.Errorf("nothing had changed: %+v", r)
			}
			if after, err := os.Stat(path); err != nil || !os.SameFile(before, after) {
				t.Errorf("nothing had changed, and the file was written: %v", err)
			}
			d.stopDurably(conn)

			exec(t, conn, "UPDATE votes SET comment = 'changed' WHERE vote_id > 395")
			exec(t, conn, "DELETE FROM votes WHERE vote_id BETWEEN 100 AND 106")
			exec(t, conn, "INSERT INTO votes (user_query) SELECT generate_series(1, 3)")
			d, r = startAgain(t, cfg, path)
			if r.Message != "resynced" || r.Rows != 396 || r.Changed < 8 || r.Changed > 38 || r.Deleted != 7 {
				t.Errorf("%+v", r)
			}
			exec(t, conn, "UPDATE votes SET comment = 'followed' WHERE vote_id = 200")
			d.flushAndCompare(conn, "votes", "vote_id")
			if names := d.Status().Kept; names.States == 0 {
				t.Errorf("the state before was not kept: %+v", names)
			}

			if source != "logical" { // the other sources move the horizon only when they read the whole table
				return
			}
			// The last transaction changes all rows. When these rows are written, the manifest may get a horizon below this
			// transaction. With that horizon, the next run would read all rows again. Therefore, the stop must store the
			// later horizon.
			exec(t, conn, "UPDATE votes SET comment = 'all'")
			next := queryOne[int64](t, conn, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8")
			eventually(t, "a horizon above the last transaction", func() error { // this function must not force a write, because the write would store the new horizon
				if h := d.table.View().Horizon(); h == nil || h.XID < uint64(next) {
					return fmt.Errorf("%+v", h)
				}
				return nil
			})
			d.stopDurably(conn)
			if d, r = startAgain(t, cfg, path); r.Message != "resynced" || r.Changed != 0 {
				t.Errorf("after a change of all rows: %+v", r)
			}
			d.flushAndCompare(conn, "votes", "vote_id")
		})
	}
}

// quietServer returns a server without autovacuum and without regular keepalives. An open transaction of
// autovacuum would keep capture's horizon (see [snapshot.Horizon]) from moving forward.
func quietServer(t *testing.T) *pgserver.Server {
	t.Helper()
	return pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off", "wal_sender_timeout": "1d"}})
}

// TestHorizonAfterLastCommit: the regular check moves the horizon past the last transaction of an idle server. The check need
// not wait until the server writes more WAL, such as the record that a server writes every 15 seconds.
func TestHorizonAfterLastCommit(t *testing.T) {
	t.Parallel()
	s := quietServer(t)
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 100)
	cfg := resyncing(config(t, s.URL("postgres")))
	cfg.timeouts.Ping, cfg.timeouts.Idle = time.Hour, time.Hour
	d := start(t, cfg)
	d.ready()
	for range 5 {
		exec(t, conn, "UPDATE votes SET comment = 'all'")
		var next uint64
		var before, after string
		const now = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8, pg_current_wal_insert_lsn()::text"
		if err := conn.QueryRow(t.Context(), now).Scan(&next, &before); err != nil {
			t.Fatal(err)
		}
		eventually(t, "a horizon above the last transaction", func() error {
			if h := d.table.View().Horizon(); h == nil || h.XID < next {
				return fmt.Errorf("%+v", h)
			}
			return nil
		})
		if err := conn.QueryRow(t.Context(), now).Scan(&next, &after); err != nil {
			t.Fatal(err)
		}
		if before == after {
			return
		}
	}
	t.Error("the horizon moved only after later WAL")
}

// TestStopAfterChangeOfAllRows: capture stops directly after a transaction that changed all rows. The next run must not
// transfer these rows again, even if capture stopped before the end of the WAL was flushed, or while a later transaction was
// open.
func TestStopAfterChangeOfAllRows(t *testing.T) {
	t.Parallel()
	s := quietServer(t)
	const update = "UPDATE votes SET comment = 'all'"
	for i, c := range []struct {
		name, source string
		statements   []string
	}{
		{"commit", "logical", []string{update}},
		{"asynchronous commit", "logical", []string{"SET synchronous_commit = off", update}},
		{"unflushed WAL", "logical", []string{update, "BEGIN", "SELECT pg_logical_emit_message(false, 'capture', 'left behind')"}},
		{"later transaction open", "logical", []string{update, "BEGIN", "INSERT INTO other VALUES (1)"}},
		{"unflushed WAL", "notify", []string{update, "BEGIN", "SELECT pg_logical_emit_message(false, 'capture', 'left behind')"}},
		{"unflushed WAL", "poll", []string{update, "BEGIN", "SELECT pg_logical_emit_message(false, 'capture', 'left behind')"}},
	} {
		t.Run(c.source+"/"+c.name, func(t *testing.T) {
			database := fmt.Sprintf("db%d", i)
			exec(t, connect(t, s.URL("postgres")), "CREATE DATABASE "+database)
			cfg, conn, path := restartable(t, c.source, s.URL(database))
			exec(t, conn, "CREATE TABLE other (id int)")
			rows := 400
			if c.source == "notify" { // if more than maxPendingKeys rows change, notify reads the whole table, and not only the changed rows by their keys
				exec(t, conn, "INSERT INTO votes (comment) SELECT 'more' FROM generate_series(1, 4000)")
				rows += 4000
			}
			cfg.PollInterval = 20 * time.Millisecond
			cfg.timeouts.Check, cfg.timeouts.Stop = time.Hour, busy.Limit(3*time.Second) // no regular check runs, so only the stop can advance the horizon
			d, _ := startAgain(t, cfg, path)
			writer := connect(t, s.URL(database))
			for _, sql := range c.statements {
				exec(t, writer, sql)
			}
			d.follows(conn, "votes", "vote_id")
			if err := d.stop(); err != nil {
				t.Fatal(err)
			}
			writer.Close(t.Context()) // ends the open transaction, because the creation of a slot would wait for it
			d, r := startAgain(t, cfg, path)
			if r.Message != "resynced" || r.Rows != rows || r.Changed != 0 {
				t.Errorf("%+v", r)
			}
			d.follows(conn, "votes", "vote_id")
		})
	}
}

// backedUp copies the files of the folder into a new folder.
func backedUp(t *testing.T, folder string) (backup string) {
	t.Helper()
	backup = t.TempDir()
	copyFiles(t, folder, backup)
	return backup
}

func copyFiles(t *testing.T, from, to string) {
	t.Helper()
	for _, name := range []string{"feedback.json", "feedback.manifest.json"} {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), data, 0o640)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// edit replaces a part of a file.
func edit(t *testing.T, path, pattern, replacement string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edited := regexp.MustCompile(pattern).ReplaceAllString(string(data), replacement)
	if edited == string(data) {
		t.Fatalf("%s has no %s", path, pattern)
	}
	if err := os.WriteFile(path, []byte(edited), 0o640); err != nil {
		t.Fatal(err)
	}
}

// doubtful is the fixture of TestRestartWithDoubtfulFile: the file of a stopped daemon, the daemon's configuration, and a
// connection to its database.
type doubtful struct {
	t      *testing.T
	cfg    Config
	conn   *pgx.Conn
	path   string // path of feedback.json
	folder string
}

func (d *doubtful) exec(sql ...string) {
	d.t.Helper()
	for _, s := range sql {
		exec(d.t, d.conn, s)
	}
}

// runOnce starts the daemon, changes the table with sql, waits until the file equals the table, and stops the daemon.
func (d *doubtful) runOnce(sql string) {
	d.t.Helper()
	daemon := startAt(d.t, d.cfg, d.path)
	daemon.ready()
	d.exec(sql)
	daemon.flushAndCompare(d.conn, "votes", "vote_id")
	daemon.stopDurably(d.conn)
}

func (d *doubtful) manifest() string { return filepath.Join(d.folder, "feedback.manifest.json") }

// TestRestartWithDoubtfulFile: if anything about the file, its manifest, the database or the table is in doubt, the next run
// copies the whole table. If the folder was restored from a backup, nothing is in doubt, and the next run transfers only
// what has changed. In each case, the file equals the table afterwards.
func TestRestartWithDoubtfulFile(t *testing.T) {
	if testing.Short() {
		t.Skip("restarts many daemons")
	}
	const change = "UPDATE votes SET comment = 'now' WHERE vote_id % 7 = 0"
	for name, c := range map[string]struct {
		doubt    func(d *doubtful)
		resynced bool // whether only the changed rows are transferred
	}{
		"folder restored from a backup": {resynced: true, doubt: func(d *doubtful) {
			backup := backedUp(d.t, d.folder)
			d.runOnce("UPDATE votes SET comment = 'later' WHERE vote_id < 50")
			d.runOnce("DELETE FROM votes WHERE vote_id < 20")
			copyFiles(d.t, backup, d.folder)
		}},
		"file edited":  {doubt: func(d *doubtful) { edit(d.t, d.path, "question 77", "question 78") }},
		"file removed": {doubt: func(d *doubtful) { os.Remove(d.path) }},
		"older file with the newer manifest": {doubt: func(d *doubtful) {
			backup := backedUp(d.t, d.folder)
			d.runOnce("UPDATE votes SET comment = 'streamee' WHERE vote_id <= 30")
			manifest, err := os.ReadFile(d.manifest())
			if err != nil {
				d.t.Fatal(err)
			}
			copyFiles(d.t, backup, d.folder)
			if err := os.WriteFile(d.manifest(), manifest, 0o640); err != nil {
				d.t.Fatal(err)
			}
		}},
		"manifest removed":         {doubt: func(d *doubtful) { os.Remove(d.manifest()) }},
		"horizon raised":           {doubt: func(d *doubtful) { edit(d.t, d.manifest(), `"xid": (\d+)`, `"xid": 1$1`) }},
		"horizon of another state": {doubt: func(d *doubtful) { edit(d.t, d.manifest(), `"rows": (\d+)`, `"rows": 1$1`) }},
		"rows of another format":   {doubt: func(d *doubtful) { edit(d.t, d.manifest(), `"row_format": 1`, `"row_format": 0`) }},
		"file and digest edited": {doubt: func(d *doubtful) {
			edit(d.t, d.path, "question 77", "question 78")
			data, err := os.ReadFile(d.path)
			if err != nil {
				d.t.Fatal(err)
			}
			edit(d.t, d.manifest(), `"sha256": "[0-9a-f]+"`, fmt.Sprintf(`"sha256": "%x"`, sha256.Sum256(data)))
		}},
		"kept state copied back": {doubt: func(d *doubtful) {
			d.runOnce("DELETE FROM votes WHERE vote_id > 100")                         // capture keeps the state before this DELETE
			kept, _ := filepath.Glob(filepath.Join(d.folder, "feedback-*-loss.json*")) // the last * matches a compressed and an uncompressed state
			if len(kept) != 1 {
				d.t.Fatalf("kept: %v", kept)
			}
			data, err := os.ReadFile(kept[0])
			if err != nil {
				d.t.Fatal(err)
			}
			name, isGzip := strings.CutSuffix(kept[0], ".gz")
			if isGzip {
				z, err := gzip.NewReader(bytes.NewReader(data))
				if err != nil {
					d.t.Fatal(err)
				}
				if data, err = io.ReadAll(z); err != nil {
					d.t.Fatal(err)
				}
			}
			m, err := os.ReadFile(strings.TrimSuffix(name, ".json") + ".manifest.json")
			if err == nil {
				err = errors.Join(os.WriteFile(d.path, data, 0o640), os.WriteFile(d.manifest(), m, 0o640))
			}
			if err != nil {
				d.t.Fatal(err)
			}
		}},
		"another source": {doubt: func(d *doubtful) { d.cfg.Source = "poll" }},
		"table truncated and filled again": {doubt: func(d *doubtful) {
			d.exec("CREATE TABLE saved AS SELECT * FROM votes", "TRUNCATE votes", "INSERT INTO votes SELECT * FROM saved")
		}},
		"table rewritten":       {doubt: func(d *doubtful) { d.exec("VACUUM FULL votes") }},
		"column with a default": {doubt: func(d *doubtful) { d.exec("ALTER TABLE votes ADD extra int DEFAULT 5") }},
		"table replaced": {doubt: func(d *doubtful) {
			d.exec("BEGIN", "ALTER TABLE votes RENAME TO votes_old", "CREATE TABLE votes (LIKE votes_old INCLUDING ALL)",
				"INSERT INTO votes SELECT * FROM votes_old WHERE vote_id % 3 > 0", "COMMIT")
		}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, conn, path := restartable(t, "logical", pgserver.Database(t))
			d := &doubtful{t, cfg, conn, path, filepath.Dir(path)}
			c.doubt(d)
			d.exec(change)
			daemon, r := startAgain(t, d.cfg, path)
			if c.resynced != (r.Message == "resynced") {
				t.Errorf("%+v", r)
			}
			daemon.flushAndCompare(conn, "votes", "vote_id")
		})
	}
}

// TestRestartOfServer: the whole table is copied after a restart of the server, and after the server was restored from a
// copy of its data. In both cases, the timeline and the system identifier stay the same.
func TestRestartOfServer(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off"}})
	cfg, conn, path := restartable(t, "notify", s.URL("postgres"))
	again := func() {
		t.Helper()
		if err := s.StartAgain(t.Context()); err != nil {
			t.Fatal(err)
		}
		conn = connect(t, s.URL("postgres"))
	}
	check := func(what string) {
		t.Helper()
		exec(t, conn, "UPDATE votes SET comment = 'now' WHERE vote_id % 7 = 0")
		d, r := startAgain(t, cfg, path)
		if r.Message != "copied" {
			t.Errorf("after %s: %+v", what, r)
		}
		d.flushAndCompare(conn, "votes", "vote_id")
		d.stopDurably(conn)
	}
	if err := s.Stop("fast"); err != nil {
		t.Fatal(err)
	}
	backup := filepath.Join(filepath.Dir(s.Dir()), "backup")
	run := func(name string, args ...string) {
		t.Helper()
		if out, err := osexec.Command(name, args...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", name, err, out)
		}
	}
	run("cp", "-a", s.Dir(), backup)
	again()
	check("a restart")
	exec(t, conn, "DELETE FROM votes WHERE vote_id < 100")
	d, r := startAgain(t, cfg, path)
	if r.Message != "resynced" {
		t.Errorf("%+v", r)
	}
	d.stopDurably(conn)
	if err := s.Stop("fast"); err != nil {
		t.Fatal(err)
	}
	run("rm", "-rf", s.Dir())
	run("mv", backup, s.Dir())
	again()
	check("a restore from a copy")
}

// TestPollStandbyTransfersChanges: the poll source reads a standby like a primary. Regular reads, and the first read after a
// restart of the daemon, transfer only what has changed. capture still follows after a promotion.
func TestPollStandbyTransfersChanges(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off"}})
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 2000)
	standby, err := s.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	cfg := resyncing(config(t, standby.URL("postgres")))
	cfg.Source, cfg.PollInterval = "poll", 20*time.Millisecond
	path := filepath.Join(t.TempDir(), "feedback.json")
	d := startAt(t, cfg, path)
	d.ready()
	checked := len(d.loggedReads())
	check := func(what string) {
		t.Helper()
		reads := d.loggedReads()
		if len(reads) == checked {
			t.Errorf("%s: no read", what)
		}
		for _, r := range reads[checked:] {
			if r.Message != "resynced" || r.Changed > 300 {
				t.Errorf("%s: %+v", what, r)
			}
		}
		checked = len(reads)
	}
	for _, sql := range []string{
		"UPDATE votes SET comment = 'c' WHERE vote_id < 10", "BEGIN; SAVEPOINT a; UPDATE votes SET comment = 'd' WHERE vote_id = 3; RELEASE a; COMMIT",
		"DELETE FROM votes WHERE vote_id BETWEEN 100 AND 200", "INSERT INTO votes (comment) VALUES ('new')", "VACUUM (FREEZE) votes; UPDATE votes SET comment = 'e' WHERE vote_id = 4",
	} {
		for _, statement := range strings.Split(sql, "; ") {
			exec(t, conn, statement)
		}
		d.follows(conn, "votes", "vote_id")
		check(sql)
	}
	eventually(t, "a horizon", func() error {
		if d.View().Horizon() == nil {
			return errors.New("there is none")
		}
		return nil
	})
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "UPDATE votes SET comment = 'stopped' WHERE vote_id = 5")
	d, checked = startAt(t, cfg, path), 0
	d.ready()
	d.follows(conn, "votes", "vote_id")
	check("a restart")
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	conn = connect(t, standby.URL("postgres"))
	exec(t, conn, "UPDATE votes SET comment = 'promoted' WHERE vote_id % 100 = 0")
	d.follows(conn, "votes", "vote_id")
	d.flushAndCompare(conn, "votes", "vote_id")
	check("a promotion")
}
