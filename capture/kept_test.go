package capture

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/internal/statefile"
	"capture/store"
	"capture/store/kept"
	"capture/store/manifest"
)

// waitForKept waits until the file has n kept states and all of them are compressed. It returns these states in order from newest to
// oldest.
func (d *daemon) waitForKept(n int) (states []kept.State) {
	d.t.Helper()
	eventually(d.t, fmt.Sprint(n, " kept states"), func() (err error) {
		if states, err = kept.List(d.path); err != nil {
			return err
		}
		for _, s := range states {
			if !strings.HasSuffix(s.Path, ".gz") {
				return fmt.Errorf("%s is not compressed", s.Path)
			}
		}
		if len(states) != n {
			return fmt.Errorf("they are %+v", states)
		}
		return nil
	})
	return states
}

// readKept reads the rows of the kept state s as `capture restore` does, and returns their number. It checks that the rows
// match the state's manifest.
func readKept(t testing.TB, s kept.State) (rows int) {
	t.Helper()
	f, err := statefile.Open(t.Context(), s.Path, strings.NewReader(""))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := statefile.NewReader(f)
	for {
		_, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		rows++
	}
	if err := f.CheckManifest(rows, nil); err != nil {
		t.Fatal(err)
	}
	return rows
}

// lossCheck returns the check of an open loss, or nil.
func (d *daemon) lossCheck() *Check {
	for _, c := range d.Status().Checks {
		if c.Name == "loss" {
			return &c
		}
	}
	return nil
}

// checkLoss checks that the state before a loss of all 200 rows is kept, and that the loss is shown and does not affect
// readiness.
func (d *daemon) checkLoss() kept.State {
	d.t.Helper()
	s := d.waitForKept(1)[0]
	if s.Loss == nil || s.Rows != 200 || s.Damaged != "" {
		d.t.Fatalf("kept %+v", s)
	}
	if n := readKept(d.t, s); n != 200 {
		d.t.Fatalf("the state has %d rows", n)
	}
	eventually(d.t, "the loss is shown", func() error {
		c := d.lossCheck()
		if c == nil || !strings.Contains(c.Detail, "capture restore --on-conflict skip "+s.Path) || !strings.Contains(c.Detail, "capture history --ack") {
			return fmt.Errorf("the check is %+v", c)
		}
		if st := d.Status(); !st.Ready || st.Kept.Losses != 1 || st.Kept.States != 1 || st.Kept.Bytes != s.DiskBytes {
			return fmt.Errorf("the status is %+v, %+v", st.Ready, st.Kept)
		}
		return nil
	})
	return s
}

// lossEnds waits until no loss is shown.
func (d *daemon) lossEnds() {
	d.t.Helper()
	eventually(d.t, "the loss ends", func() error {
		if c := d.lossCheck(); c != nil {
			return fmt.Errorf("the check is %+v", c)
		}
		return nil
	})
}

// TestLoss: for each source, the table is emptied once while capture runs, and once while capture is stopped. The state before
// the loss is kept, and the loss ends when the rows are back or when somebody acknowledges it.
func TestLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("causes many losses")
	}
	t.Parallel()
	eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) {
		cfg.intervals.keptCheck, cfg.Keep.Hours = 20*time.Millisecond, 0
		exec(t, conn, "INSERT INTO votes (user_query) SELECT 'question ' || i FROM generate_series(1, 200) i")
		exec(t, conn, "CREATE TABLE saved AS TABLE votes")
		d := start(t, cfg)
		d.ready()
		exec(t, conn, "TRUNCATE votes")
		d.flushAndCompare(conn, "votes", "vote_id")
		s := d.checkLoss()
		const warning = "the table lost rows or values; the state before is kept"
		if d.said(warning) != 1 {
			t.Errorf("the log is %s", d.log)
		}
		if names := fmt.Sprintf(`"file":%q,"file_once_compressed":%q`, strings.TrimSuffix(s.Path, ".gz"), s.Path); !strings.Contains(d.log.String(), names) {
			t.Errorf("the log does not have %s: %s", names, d.log)
		}
		exec(t, conn, "INSERT INTO votes TABLE saved")
		d.lossEnds()
		if err := s.Drop(); err != nil {
			t.Fatal(err)
		}

		// A reload in one transaction, and a new column, are no losses.
		exec(t, conn, "BEGIN; TRUNCATE votes; INSERT INTO votes TABLE saved; COMMIT")
		d.flushAndCompare(conn, "votes", "vote_id")
		exec(t, conn, "ALTER TABLE votes ADD COLUMN more int DEFAULT 5")
		d.flushAndCompare(conn, "votes", "vote_id")
		d.waitForKept(0)

		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
		exec(t, conn, "DELETE FROM votes")
		d = startAt(t, cfg, d.path)
		d.ready()
		d.flushAndCompare(conn, "votes", "vote_id")
		s = d.checkLoss()
		if err := s.Acknowledge(); err != nil {
			t.Fatal(err)
		}
		d.lossEnds()
	})
}

// TestOtherTableIsWarnedOf changes the search_path once while capture runs, and once while capture is stopped. The name of the
// table then stands for an empty table in another schema, and capture warns of that.
func TestOtherTableIsWarnedOf(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many daemons")
	}
	eachSource(t, func(t *testing.T, cfg Config, url string, conn *pgx.Conn) {
		cfg.intervals.keptCheck = 20 * time.Millisecond
		exec(t, conn, "INSERT INTO votes (user_query) SELECT 'question ' || i FROM generate_series(1, 200) i")
		exec(t, conn, "CREATE SCHEMA app")
		exec(t, conn, "CREATE TABLE app.votes (LIKE public.votes INCLUDING ALL)")
		name := func(schema string) (text string) {
			if err := conn.QueryRow(t.Context(), "SELECT $1 || '.votes (OID ' || to_regclass($1 || '.votes')::oid || ')'", schema).Scan(&text); err != nil {
				t.Fatal(err)
			}
			return text
		}
		warned := func(d *daemon, before, now string) {
			t.Helper()
			eventually(t, "a warning names both tables", func() error {
				for line := range strings.Lines(d.log.String()) {
					if strings.Contains(line, "has another table now") && strings.Contains(line, `"before":"`+before) && strings.Contains(line, `"now":"`+now) {
						return nil
					}
				}
				return fmt.Errorf("the log is %s", d.log)
			})
		}
		d := start(t, cfg)
		d.ready()
		exec(t, conn, "ALTER DATABASE "+conn.Config().Database+" SET search_path = app, public")

		exec(t, conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		warned(d, name("public"), name("app"))
		d.checkLoss()
		d.stop()
		exec(t, conn, "ALTER DATABASE "+conn.Config().Database+" RESET search_path")
		d = startAt(t, cfg, d.path)
		d.ready()
		warned(d, name("app"), name("public"))
	})
}

// TestLossWithSpilledRows: capture finds a loss of rows that are in the spill file. It also finds a loss by comparing the
// spilled rows with a new copy of the table.
func TestLossWithSpilledRows(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a table that is larger than the memory")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (user_query, bot_response) SELECT i, repeat(md5(i::text), 70) FROM generate_series(1, 3000) i")
	cfg := config(t, url)
	cfg.MemoryLimit = 1
	cfg.intervals.keptCheck = 20 * time.Millisecond
	d := start(t, cfg)
	d.ready()
	if m := d.Status().Memory; m == nil || m.Spilled < 1<<20 {
		t.Errorf("not spilled: %+v", m)
	}
	exec(t, conn, "DELETE FROM votes WHERE vote_id % 5 = 0")
	d.flushAndCompare(conn, "votes", "vote_id")
	if s := d.waitForKept(1)[0]; s.Loss == nil || s.Loss.RowsLost != 600 || s.Rows != 3000 {
		t.Errorf("kept %+v, %+v", s, s.Loss)
	}
	exec(t, conn, "BEGIN; DROP TABLE votes; "+votes+"; COMMIT")
	d.flushAndCompare(conn, "votes", "vote_id")
	if s := d.waitForKept(2)[0]; s.Loss == nil || s.Rows != 2400 || s.Loss.RowsAfter != 0 {
		t.Errorf("kept %+v, %+v", s, s.Loss)
	}
}

// TestLossAfterKilledWrite: capture has kept the state before a loss, and was killed before it replaced the file. The file
// therefore still has the lost rows, but the table does not. An open transaction keeps the next run from reading the table,
// so this run loads the rows of the file. The test then damages the file, so the run also writes these rows again. The loss
// must not end, because the table still lacks the rows.
func TestLossAfterKilledWrite(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (user_query) SELECT i FROM generate_series(1, 200) i")
	cfg := config(t, url)
	d := start(t, cfg)
	d.ready()
	d.stopDurably(conn)
	exec(t, conn, "DELETE FROM votes")
	f, err := store.Open(d.path, store.Owner{})
	if err != nil {
		t.Fatal(err)
	}
	m, _ := f.Existing()
	m.Kept = &manifest.Kept{Loss: &manifest.Loss{RowsBefore: 200, RowsLost: 200}}
	_, err = f.Kept().Keep(m, nil)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	writer := connect(t, url)
	exec(t, writer, "BEGIN; INSERT INTO votes (user_query) VALUES ('rolled back')")
	cfg.VerifyInterval = 10 * time.Millisecond // capture also reads the file back at this interval
	d = startAt(t, cfg, d.path)
	eventually(t, "the rows of the file", func() error {
		if v := d.table.View(); v == nil || v.Rows() != 200 {
			return errors.New("they are not loaded yet")
		}
		return nil
	})
	d.keeper.checkLosses()
	edit(t, d.path, `"user_query": ?"7"`, `"user_query":"8"`)
	eventually(t, "the damaged file is written", func() error {
		if d.said("feedback.json is damaged; it is written whole") == 0 || d.said("flushed") == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	d.keeper.checkLosses()
	if v := d.table.View(); v.Rows() != 200 {
		t.Fatalf("the check saw %d rows", v.Rows())
	}
	exec(t, writer, "ROLLBACK")
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
	d.checkLoss()
	if d.said("the lost rows are back") > 0 {
		t.Errorf("the log is %s", d.log)
	}
}

// TestOrdinaryStatesAreKept: each regular write adds a state, unless this state equals the previous one.
func TestOrdinaryStatesAreKept(t *testing.T) {
	if testing.Short() {
		t.Skip("waits while nothing changes")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	cfg := config(t, url)
	cfg.FlushInterval = time.Second
	d := start(t, cfg)
	d.ready()
	for i := range 3 {
		exec(t, conn, "INSERT INTO votes (user_query) VALUES ('kept')")
		eventually(t, "a kept state with the row", func() error {
			states, err := kept.List(d.path)
			if err != nil || len(states) == 0 || states[0].Rows != i+1 || states[0].Loss != nil {
				return fmt.Errorf("%+v, %v", states, err)
			}
			return nil
		})
	}
	time.Sleep(2500 * time.Millisecond) // meanwhile, regular writes keep the same state again
	hours := map[time.Time]bool{}
	states, err := kept.List(d.path)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range states {
		hours[s.Time.Truncate(time.Hour)] = true
	}
	// Only the newest state of an hour is kept. If an hour ends during the test, there are two states.
	if len(states) == 0 || len(states) != len(hours) || states[0].Rows != 3 {
		t.Errorf("kept %+v", states)
	}
	d.waitForKept(len(states))
	if found, err := filepath.Glob(filepath.Join(filepath.Dir(d.path), ".*")); err != nil || len(found) > 0 {
		t.Errorf("left over: %q, %v", found, err)
	}
	if b, err := json.Marshal(d.Status().Kept); err != nil || !strings.Contains(string(b), fmt.Sprintf(`"states":%d,`, len(states))) {
		t.Errorf("the status is %s, %v", b, err)
	}
}

// TestDamageIsRepaired: if a byte of the file is wrong, capture finds this when it reads the file back, or at a forced write.
// It logs and counts the damage, and writes the file whole.
func TestDamageIsRepaired(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (bot_response) SELECT repeat(md5(i::text), 3000) FROM generate_series(1, 90) i") // 90 rows of 96 kB
	cfg := config(t, url)
	cfg.VerifyInterval = 300 * time.Millisecond
	d := start(t, cfg)
	d.ready()
	info, err := os.Stat(d.path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(d.path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteAt([]byte("?"), info.Size()/2); err != nil {
		t.Fatal(err)
	}
	if err := os.Chtimes(d.path, info.ModTime(), info.ModTime()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the damage is found and repaired", func() error {
		if d.said("feedback.json is damaged; it is written whole") == 0 {
			return fmt.Errorf("not found")
		}
		b, err := os.ReadFile(d.path)
		if err != nil {
			return err
		}
		if strings.Contains(string(b), "?") {
			return fmt.Errorf("not repaired")
		}
		return nil
	})
	d.flushAndCompare(conn, "votes", "vote_id")
}
