package capture

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/busy"
	"capture/internal/pgserver"
)

// slowly returns the Config that config returns, with a limit that makes the first copy of bigTable take long.
func slowly(t testing.TB, url string) Config {
	cfg := config(t, url)
	cfg.CopyRate = 1_500_000
	return cfg
}

// bigTable creates the table votes and fills it with about 6 MB.
func bigTable(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	table(t, conn, 0)
	exec(t, conn, "INSERT INTO votes (user_query, bot_response) SELECT 'q', repeat(md5(i::text), 90) FROM generate_series(1, 2000) i")
}

// TestCopyGivesWay: the application alters its table during a copy. The ALTER TABLE must wait only for a second or two, not
// until the copy ends, because other sessions that need the table queue up behind the ALTER TABLE.
func TestCopyGivesWay(t *testing.T) {
	t.Parallel()
	url := pgserver.ForTest(t, pgserver.Options{}).URL("postgres") // on a shared server, transactions of other tests would delay the slot, and capture would first read the table without a slot
	conn, other := connect(t, url), connect(t, url)
	bigTable(t, conn)
	d := start(t, slowly(t, url))
	copying(t, conn, 1)
	mode := queryOne[string](t, conn, "SELECT string_agg(DISTINCT mode, ', ') FROM pg_locks WHERE relation = 'votes'::regclass")
	if mode != "AccessShareLock" {
		t.Errorf("the copy holds %s", mode)
	}
	altered := make(chan time.Duration, 1)
	go func() {
		began := time.Now()
		if _, err := other.Exec(t.Context(), "ALTER TABLE votes ADD extra int"); err != nil {
			t.Error(err)
		}
		altered <- time.Since(began)
	}()
	if took := <-altered; took > busy.Limit(3*time.Second) {
		t.Errorf("the application's ALTER TABLE took %s", took)
	}
	eventually(t, "the log says that the copy gave way", func() error {
		if !strings.Contains(d.log.String(), "gave way to a session that waits for the table") {
			return errors.New("not yet")
		}
		return nil
	})
	if n := d.said("copied"); n != 0 {
		t.Errorf("copied %d times while it had to give way", n)
	}
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
}

// TestPlainReadGivesWay: while the slot waits for an old transaction, capture makes the first file from a plain read, which
// is a read without a slot. Like a copy, the plain read gives way to the application.
func TestPlainReadGivesWay(t *testing.T) {
	t.Parallel()
	url := pgserver.ForTest(t, pgserver.Options{}).URL("postgres") // on a shared server, the open transaction would hold up the slots of other tests
	conn, open, other := connect(t, url), connect(t, url), connect(t, url)
	bigTable(t, conn)
	exec(t, open, "CREATE TABLE other (n int)")
	exec(t, open, "BEGIN; INSERT INTO other VALUES (1)")
	cfg := slowly(t, url)
	cfg.CopyRate = 50_000 // the read takes two minutes; if the read does not end early, wantWithin fails even on a busy machine
	d := start(t, cfg)
	copying(t, conn, 1)
	wantWithin(t, 3*time.Second, "the application's TRUNCATE", func() { exec(t, other, "TRUNCATE votes") })
	exec(t, open, "COMMIT")
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
}

// TestCopyRate: --copy-rate limits the speed of a copy.
func TestCopyRate(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a slow copy")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	bigTable(t, conn)
	cfg := config(t, url)
	cfg.CopyRate = 4_000_000
	d := start(t, cfg)
	began := time.Now()
	d.ready()
	if took := time.Since(began); took < time.Second {
		t.Errorf("6 MB at 4 MB a second took %s", took)
	}
	d.flushAndCompare(conn, "votes", "vote_id")
}

// TestWALWhileCopying: --max-wal bounds the WAL that the slot retains, even during the first copy.
func TestWALWhileCopying(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	url := s.URL("postgres")
	conn := connect(t, url)
	bigTable(t, conn)
	cfg := config(t, url)
	cfg.MaxWAL, cfg.CopyRate = 16<<20, 600_000 // the copy is so slow that writeWAL ends first
	d := start(t, cfg)
	copying(t, conn, 1)
	writeWAL(t, url, 20)
	d.notReady("--max-wal")
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
}

// TestOpenTransactionAtStart: a write transaction stays open, and slot creation waits for it. A plain read gives a first file
// at once, and Status names the transaction. The file then gets what others commit during the wait, and what the transaction
// commits.
func TestOpenTransactionAtStart(t *testing.T) {
	t.Parallel()
	url := pgserver.ForTest(t, pgserver.Options{}).URL("postgres") // on a shared server, the open transaction would hold up the slots of other tests
	conn, open := connect(t, url), connect(t, url)
	table(t, conn, 20)
	exec(t, open, "BEGIN; INSERT INTO votes (user_query) VALUES ('committed late')")
	d := start(t, config(t, url))
	eventually(t, "a first file", func() error {
		if _, err := os.Stat(d.path); err != nil {
			return err
		}
		if n := len(d.fileRows()); n != 20 {
			return fmt.Errorf("%d rows", n)
		}
		return nil
	})
	pid := queryOne[int](t, open, "SELECT pg_backend_pid()")
	d.notReady("must end first", fmt.Sprintf("pid %d", pid))
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('committed meanwhile')")
	exec(t, open, "COMMIT")
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
}

// TestPreparedTransactionAtStart: a prepared transaction that nobody ends holds up the slot. Status names the transaction and
// the statement that ends it.
func TestPreparedTransactionAtStart(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"max_prepared_transactions": "2"}})
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 20)
	exec(t, conn, "BEGIN; INSERT INTO votes (user_query) VALUES ('prepared'); PREPARE TRANSACTION 'forgotten'")
	d := start(t, config(t, s.URL("postgres")))
	d.notReady("must end first", "ROLLBACK PREPARED 'forgotten'", "of postgres in database postgres")
	exec(t, conn, "ROLLBACK PREPARED 'forgotten'")
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
}

// TestSlotBehindPlainRead: a plain read shows a commit that is later than the start of the slot, so the slot's snapshot lacks
// this commit. The test causes this by suspending the walsender while the transaction that the slot waits for ends. The file
// must not lose the commit.
func TestSlotBehindPlainRead(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	url := s.URL("postgres")
	conn := connect(t, url)
	table(t, conn, 20)
	exec(t, conn, "CREATE PUBLICATION capture_votes FOR TABLE votes") // without a publication, capture first creates a slot only as a test
	for attempt := 1; ; attempt++ {
		open := connect(t, url)
		exec(t, open, "BEGIN; SELECT txid_current()")
		cfg := config(t, url)
		cfg.FlushDelay = time.Hour // no change of the stream is written, so the file keeps the state that the copy shows
		d := start(t, cfg)
		walsender := 0
		eventually(t, "the slot waits", func() error {
			walsender = queryOne[int](t, conn, "SELECT COALESCE(max(pid), 0) FROM pg_stat_activity WHERE backend_type = 'walsender' AND wait_event = 'transactionid'")
			if walsender == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		if err := syscall.Kill(walsender, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		exec(t, open, "COMMIT")
		exec(t, conn, "CHECKPOINT") // writes a WAL record of the running transactions; the slot starts at this record, before the next commit
		exec(t, conn, "CHECKPOINT")
		exec(t, conn, "INSERT INTO votes (user_query) VALUES ($1)", fmt.Sprint("after ", attempt))
		eventually(t, "the plain read", func() error {
			if d.said("read") == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		early := d.table.View().Rows() < queryOne[int](t, conn, "SELECT count(*) FROM votes") // the plain read came too early to see the vote
		if err := syscall.Kill(walsender, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		d.ready()
		if early && attempt < 10 {
			if err := d.stop(); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if n := d.said("resyncing table"); n != 1 {
			t.Errorf("%d resyncs", n)
		}
		if !strings.Contains(strings.Join(d.fileRows(), ""), fmt.Sprint("after ", attempt)) {
			t.Error("the vote that the plain read showed is gone")
		}
		d.flushAndCompare(conn, "votes", "vote_id")
		return
	}
}

// TestStopWhileSlotWaits: capture stops at once while slot creation waits for an open transaction. The server then drops the
// slot.
func TestStopWhileSlotWaits(t *testing.T) {
	t.Parallel()
	url := pgserver.ForTest(t, pgserver.Options{}).URL("postgres") // on a shared server, the open transaction would hold up the slots of other tests
	conn, open := connect(t, url), connect(t, url)
	table(t, conn, 20)
	exec(t, open, "BEGIN; INSERT INTO votes (user_query) VALUES ('committed late')")
	d := start(t, config(t, url))
	d.notReady("must end first")
	wantWithin(t, 2*time.Second, "the stop", func() {
		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
	})
	eventually(t, "the slot is gone", func() error {
		if n := queryOne[int](t, conn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()"); n > 0 {
			return errors.New("it is there")
		}
		return nil
	})
}

// TestStopAtOnce: capture stops within two seconds, whatever it is doing.
func TestStopAtOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("stops daemons in many states")
	}
	t.Parallel()
	stop := func(t *testing.T, d *daemon) {
		t.Helper()
		wantWithin(t, 2*time.Second, "the stop", func() {
			if err := d.stop(); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("at the first copy", func(t *testing.T) {
		t.Parallel()
		url := pgserver.Database(t)
		conn := connect(t, url)
		bigTable(t, conn)
		d := start(t, slowly(t, url))
		copying(t, conn, 1)
		stop(t, d)
		eventually(t, "the copy has ended at the server, too", func() error {
			if n := queryOne[int](t, conn, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"); n > 0 {
				return fmt.Errorf("%d sessions", n)
			}
			return nil
		})
		if _, err := os.Stat(d.path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("a file of half a copy: %v", err)
		}
	})
	t.Run("at the first copy over a dead line", func(t *testing.T) {
		t.Parallel()
		url := pgserver.Database(t)
		conn := connect(t, url)
		bigTable(t, conn)
		p := proxied(t, pgserver.Shared(t))
		p.Throttle(1_500_000, 0)
		d := start(t, config(t, strings.Replace(url, pgserver.Shared(t).Addr(), p.Addr(), 1)))
		copying(t, conn, 1)
		p.Stall()
		stop(t, d)
		p.Cut()
	})
	for _, source := range sourceKinds {
		t.Run("while the server hangs, by "+source, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := connect(t, url)
			table(t, conn, 10)
			p := proxied(t, pgserver.Shared(t))
			cfg := config(t, strings.Replace(url, pgserver.Shared(t).Addr(), p.Addr(), 1))
			cfg.Source, cfg.PollInterval = source, 20*time.Millisecond
			d := start(t, cfg)
			d.ready()
			exec(t, conn, "UPDATE votes SET comment = 'all'")
			exec(t, conn, "SELECT pg_logical_emit_message(false, 'capture', 'left behind')") // this WAL is not on disk yet, so a horizon at the stop would have to wait for it
			d.follows(conn, "votes", "vote_id")
			p.Stall()
			eventually(t, "silence", func() error {
				if at := d.Status().LastContact; time.Since(*at) < time.Second {
					return fmt.Errorf("contact at %s", at)
				}
				return nil
			})
			stop(t, d)
			p.Cut()
		})
	}
	t.Run("while connecting to what does not answer", func(t *testing.T) {
		t.Parallel()
		p := proxied(t, pgserver.Shared(t))
		p.Stall()
		d := start(t, config(t, p.URL("postgres")))
		eventually(t, "connecting", func() error {
			if p.Links() == 0 {
				return errors.New("not yet")
			}
			return nil
		})
		stop(t, d)
	})
	t.Run("in the pause before the next attempt", func(t *testing.T) {
		t.Parallel()
		p := proxied(t, pgserver.Shared(t))
		p.Refuse()
		d := start(t, config(t, p.URL("postgres")))
		eventually(t, "a long pause", func() error {
			if s := d.Status(); s.State != stateWaiting || time.Until(*s.NextAttempt) < 2*time.Second {
				return errors.New(s.State)
			}
			return nil
		})
		stop(t, d)
	})
	t.Run("in a storm of changes", func(t *testing.T) {
		t.Parallel()
		url := pgserver.Database(t)
		conn := connect(t, url)
		table(t, conn, 100)
		d := start(t, config(t, url))
		d.ready()
		end := startLoad(t, url, 2)
		defer end()
		eventually(t, "changes come", func() error {
			if n := d.Status().Transactions; n < 50 {
				return fmt.Errorf("%d transactions", n)
			}
			return nil
		})
		stop(t, d)
		d.fileRows()
	})
}

// TestCopyUnderLoad: votes are written all the time while capture starts and restarts. Nothing is lost or doubled
// between copy and stream.
func TestCopyUnderLoad(t *testing.T) {
	if testing.Short() {
		t.Skip("copies a large table")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 3000)
	stop := startLoad(t, url, 4)
	for range 4 {
		d := start(t, config(t, url))
		d.ready()
		before := d.View().Version()
		eventually(t, "the stream continues", func() error {
			if d.View().Version() < before+20 {
				return errors.New("not yet")
			}
			return nil
		})
		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
	}
	d := start(t, config(t, url))
	d.ready()
	if stop() == 0 {
		t.Error("the load wrote nothing")
	}
	d.flushAndCompare(conn, "votes", "vote_id")
	if n := d.said("copied"); n != 1 {
		t.Errorf("copied %d times, want once: the test is about the stream", n)
	}
}

// TestSynchronousStandby: a commit waits for a standby that is away. The commit is in the WAL and not visible yet. The file
// includes the commit once the commit is visible.
func TestSynchronousStandby(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"synchronous_commit": "local"}})
	url := s.URL("postgres")
	conn, waiting := connect(t, url), connect(t, url)
	table(t, conn, 20)
	if err := s.Reload(t.Context(), map[string]string{"synchronous_standby_names": "nobody"}); err != nil {
		t.Fatal(err)
	}
	exec(t, waiting, "SET synchronous_commit = on")
	committed := make(chan error, 1)
	var released atomic.Bool
	go func() {
		var err error
		for err == nil && !released.Load() { // the first commits do not wait if the new setting is not yet active
			_, err = waiting.Exec(t.Context(), "INSERT INTO votes (user_query) VALUES ('waits for the standby')")
		}
		committed <- err
	}()
	eventually(t, "the commit waits", func() error {
		if queryOne[int](t, conn, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	d := start(t, config(t, url))
	d.follows(conn, "votes", "vote_id")
	released.Store(true)
	if err := s.Reload(t.Context(), map[string]string{"synchronous_standby_names": ""}); err != nil {
		t.Fatal(err)
	}
	if err := <-committed; err != nil {
		t.Fatal(err)
	}
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
	if !strings.Contains(strings.Join(d.fileRows(), ""), "waits for the standby") {
		t.Error("the vote is not there")
	}
}

// TestRoleSettings: settings of capture's role, such as timeouts, formats and the transaction mode, neither end capture's
// sessions nor change what capture writes. The role has only the rights that `capture setup` grants, and these are enough.
func TestRoleSettings(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	url := s.URL("postgres")
	conn := connect(t, url)
	bigTable(t, conn)
	exec(t, conn, "CREATE PUBLICATION capture_votes FOR TABLE votes")
	exec(t, conn, `CREATE ROLE reader LOGIN REPLICATION; GRANT SELECT ON votes TO reader;
		ALTER ROLE reader SET statement_timeout = '300ms'; ALTER ROLE reader SET lock_timeout = '100ms';
		ALTER ROLE reader SET idle_in_transaction_session_timeout = '300ms'; ALTER ROLE reader SET TimeZone = 'Asia/Tokyo';
		ALTER ROLE reader SET DateStyle = 'SQL, DMY'; ALTER ROLE reader SET default_transaction_read_only = on;
		ALTER ROLE reader SET search_path = 'public'; ALTER ROLE reader SET default_transaction_isolation = 'serializable'`)
	cfg := slowly(t, strings.Replace(url, "postgres@", "reader@", 1))
	cfg.CopyRate = 4_000_000
	d := start(t, cfg)
	d.ready()
	exec(t, conn, "UPDATE votes SET comment = 'c' WHERE vote_id % 50 = 0")
	d.flushAndCompare(conn, "votes", "vote_id")
	if n := d.said("not following"); n != 0 {
		t.Errorf("it failed %d times", n)
	}
}

// TestRowSecurity: a row security policy hides rows from capture's user. capture refuses to follow the table, because the
// file must not lack rows silently.
func TestRowSecurity(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	url := s.URL("postgres")
	conn := connect(t, url)
	table(t, conn, 20)
	exec(t, conn, `CREATE PUBLICATION capture_votes FOR TABLE votes; CREATE ROLE reader LOGIN REPLICATION; GRANT SELECT ON votes TO reader;
		ALTER TABLE votes ENABLE ROW LEVEL SECURITY; CREATE POLICY half ON votes USING (vote_id % 2 = 0)`)
	d := start(t, config(t, strings.Replace(url, "postgres@", "reader@", 1)))
	d.notReady("row")
	if _, err := os.Stat(d.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("there is a file: %v", err)
	}
	exec(t, conn, "ALTER ROLE reader BYPASSRLS")
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
	exec(t, conn, "ALTER ROLE reader NOBYPASSRLS")
}
