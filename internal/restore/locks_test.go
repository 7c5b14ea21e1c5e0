package restore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/busy"
	"capture/internal/locktest"
	"capture/internal/restore"
	"capture/internal/statefile"
	"capture/internal/statefile/statefiletest"
)

// TestLockIsWaitedForInTurns checks that other sessions can use the table while a restore waits for a lock on it.
func TestLockIsWaitedForInTurns(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for locks to time out")
	}
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(10)
	path := d.Export("votes")
	d.Exec("DELETE FROM votes WHERE vote_id < 5")
	connect := func() *statefiletest.DB { return &statefiletest.DB{T: t, Config: d.Config, Conn: d.Connect(d.Config)} }
	holder, app := connect(), connect()
	holder.Exec("BEGIN; INSERT INTO votes (vote_id) VALUES (100)")
	var waits atomic.Int64
	o := restore.Options{Path: path, OnConflict: restore.Skip, Progress: func(p statefile.Progress) {
		pid := fmt.Sprint(holder.Conn.PgConn().PID())
		if !strings.Contains(p.Doing, "waiting for the table, by process "+pid) {
			return
		}
		switch waits.Add(1) {
		case 1:
			if !strings.Contains(p.Doing, "idle in transaction for") {
				t.Errorf("it says %s", p.Doing)
			}
			// Between two attempts, the restore holds no lock on the table, so nobody waits for the restore. Even an ALTER
			// TABLE waits only for the session that holds the lock.
			app.Exec("SET lock_timeout = '10s'; INSERT INTO votes (vote_id) VALUES (101)")
			if got := app.Query(fmt.Sprintf("SELECT count(*) FROM pg_locks WHERE pid = %d AND relation = 'votes'::regclass", d.Conn.PgConn().PID())); got != "0" {
				t.Errorf("the restore holds %s locks on the table while it waits", got)
			}
		case 2:
			holder.Exec("COMMIT")
		}
	}}
	if res := d.restore(o); res.Inserted.Rows != 4 || waits.Load() < 2 {
		t.Errorf("%+v after %d waits", res, waits.Load())
	}
	holder.Exec("BEGIN; LOCK TABLE votes IN SHARE MODE")
	o.LockWait, o.Progress = time.Millisecond, nil
	d.wantRefused(o, "table public.votes is locked, by process", "pg_terminate_backend")
	o.DryRun = true
	o.LockWait = 0
	holder.Exec("ROLLBACK; BEGIN; UPDATE votes SET comment = 'x'")
	d.restore(o) // this dry run has no rows to insert, so it does not wait for the UPDATE
	holder.Exec("ROLLBACK")
}

// TestRestoreBetweenPartitions checks that a restore causes no deadlock with a migration that locks the partitions in the
// opposite order. If the restore waited for one partition while holding another, the migration would fail after its
// deadlock_timeout, which is one millisecond.
func TestRestoreBetweenPartitions(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE votes (vote_id int PRIMARY KEY) PARTITION BY RANGE (vote_id);
		CREATE TABLE votes_1 PARTITION OF votes FOR VALUES FROM (0) TO (10); CREATE TABLE votes_2 PARTITION OF votes FOR VALUES FROM (10) TO (20);
		INSERT INTO votes VALUES (1), (2), (11), (12)`)
	path := d.Export("votes")
	app := d.Connect(d.Config)
	exec := func(statements string) {
		ctx, cancel := context.WithTimeout(context.Background(), busy.Limit(10*time.Second))
		defer cancel()
		if _, err := app.Exec(ctx, statements, pgx.QueryExecModeSimpleProtocol); err != nil {
			t.Error(err)
		}
	}
	exec("SET deadlock_timeout = '1ms'")
	confirm := func(string, int64) error { return nil }
	for _, c := range []struct {
		name    string
		first   string // regular expression; the migration locks a partition before the restore's first statement that matches it
		waits   bool   // whether the migration continues only when the restore waits for the partition
		options restore.Options
	}{
		{"count", "ACCESS SHARE|count", false, restore.Options{OnConflict: restore.Overwrite, Confirm: confirm}},
		{"read", "ACCESS SHARE|NOT EXISTS .SELECT FROM", false, restore.Options{OnConflict: restore.Skip}},
		{"write", "ROW EXCLUSIVE", false, restore.Options{OnConflict: restore.Skip}},
		{"long wait to write", "ROW EXCLUSIVE", true, restore.Options{OnConflict: restore.Skip}},
		{"dry run, read", "ACCESS SHARE|NOT EXISTS .SELECT FROM", false, restore.Options{OnConflict: restore.Skip, DryRun: true}},
		{"dry run, write", "ROW EXCLUSIVE", false, restore.Options{OnConflict: restore.Skip, DryRun: true}},
	} {
		if c.waits && testing.Short() {
			continue
		}
		d.Exec("DELETE FROM votes WHERE vote_id IN (2, 12)")
		tracer := locktest.New(c.first, func() { exec("BEGIN; LOCK TABLE public.votes_2") })
		cfg := d.Config.Copy()
		cfg.Tracer = tracer
		conn := d.Connect(cfg)
		c.options.Path = path
		var res restore.Result
		ended := make(chan error, 1)
		go func() {
			var err error
			res, err = restore.Restore(context.Background(), conn, c.options)
			ended <- err
		}()
		select {
		case <-tracer.Locked:
		case err := <-ended:
			t.Fatalf("%s: the migration did not lock the partition: %v", c.name, err)
		}
		for start := time.Now(); c.waits || len(tracer.Refused) == 0; time.Sleep(time.Millisecond) {
			if d.Query(fmt.Sprintf("SELECT count(*) FROM pg_locks WHERE NOT granted AND pid = %d", conn.PgConn().PID())) != "0" {
				break
			}
			if len(ended) > 0 || time.Since(start) > time.Minute {
				t.Fatalf("%s: the restore did not need the partition", c.name)
			}
		}
		exec("LOCK TABLE public.votes_1")
		exec("COMMIT")
		if err := <-ended; err != nil || res.Inserted.Rows != 2 {
			t.Errorf("%s: %+v, %v", c.name, res, err)
		}
	}
}

// TestStagingHoldsNoLock checks that another session can change the table's definition while a restore reads the file. The
// restore then fails, because the definition has changed.
func TestStagingHoldsNoLock(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(3000)
	path := d.Export("votes")
	d.Exec("DELETE FROM votes WHERE vote_id < 5")
	app := &statefiletest.DB{T: t, Config: d.Config, Conn: d.Connect(d.Config)}
	app.Exec("SET lock_timeout = '10s'")
	done := false
	o := restore.Options{Path: path, OnConflict: restore.Skip, Progress: func(p statefile.Progress) {
		if p.Doing == "restoring" && !done {
			done = true
			app.Exec("INSERT INTO votes (vote_id) VALUES (4000); ALTER TABLE votes ADD COLUMN rating int")
		}
	}}
	d.wantRefused(o, "changed the definition of table public.votes")
	if res := d.restore(o); res.Inserted.Rows != 4 {
		t.Errorf("%+v", res)
	}
}

// TestConnectionLostDuringCommit checks the error of a restore that loses its connection just before or just after it sends
// the commit. The outcome is unknown only if the commit was sent.
func TestConnectionLostDuringCommit(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(10)
	path := d.Export("votes")
	for _, sent := range []bool{false, true} {
		d.Exec("TRUNCATE votes")
		cfg := d.Config.Copy()
		dial := cfg.DialFunc
		cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := dial(ctx, network, addr)
			return &commitCutter{conn, sent}, err
		}
		_, err := restore.Restore(t.Context(), d.Connect(cfg), restore.Options{Path: path})
		if err == nil || errors.Is(err, restore.ErrUnknownOutcome) != sent || !strings.Contains(err.Error(), "commit: ") || !strings.Contains(err.Error(), "closed") {
			t.Errorf("sent %v: %v", sent, err)
		}
		if !sent && d.Query("SELECT count(*) FROM votes") != "0" {
			t.Error("it was committed")
		}
	}
}

// commitCutter is a connection that closes itself instead of sending the commit or, if send is true, just after sending the
// commit.
type commitCutter struct {
	net.Conn
	send bool
}

func (c *commitCutter) Write(p []byte) (int, error) {
	if !bytes.Contains(p, []byte("commit\x00")) {
		return c.Conn.Write(p)
	}
	defer c.Close()
	if !c.send {
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

// TestInterruptedRestoreLeavesNothing checks that an interrupted restore leaves the table unchanged, and leaves no temporary
// table behind.
func TestInterruptedRestoreLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("interrupts restores at many places")
	}
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(600)
	path := d.Export("votes")
	d.Exec(`DELETE FROM votes WHERE vote_id < 100; UPDATE votes SET comment = 'changed' WHERE vote_id > 400; CREATE TABLE before AS TABLE votes;
		CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END $$;
		CREATE TRIGGER slow BEFORE INSERT ON votes FOR EACH ROW EXECUTE FUNCTION slow()`)
	for _, where := range []string{"restoring", "waiting for the table", "writing"} {
		for _, cut := range []bool{false, true} {
			ctx, cancel := context.WithCancel(context.Background())
			conn := d.Connect(d.Config)
			pid := conn.PgConn().PID()
			reached := false
			_, err := restore.Restore(ctx, conn, restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true, Progress: func(p statefile.Progress) {
				if p.Doing != where || reached {
					return
				}
				if reached = true; cut {
					conn.PgConn().Conn().Close()
				} else {
					cancel()
				}
			}})
			cancel()
			if reached == (err == nil) || errors.Is(err, restore.ErrUnknownOutcome) {
				t.Errorf("%s: reached %v, %v", where, reached, err)
			}
			conn.Close(context.Background())
			for start := time.Now(); d.Query(fmt.Sprintf("SELECT count(*) FROM pg_stat_activity WHERE pid = %d", pid)) != "0"; time.Sleep(10 * time.Millisecond) {
				if time.Since(start) > time.Minute {
					t.Fatalf("%s: the session is still there", where)
				}
			}
			if !reached {
				t.Errorf("the restore did not come to %q", where)
				d.Exec("TRUNCATE votes; ALTER TABLE votes DISABLE TRIGGER slow; INSERT INTO votes SELECT * FROM before; ALTER TABLE votes ENABLE TRIGGER slow")
			}
			d.WantSameRows("before", "votes", "vote_id")
			if got := d.Query("SELECT count(*) FROM pg_class WHERE relname LIKE 'capture_restore%'"); got != "0" {
				t.Errorf("%s: %s temporary tables are left", where, got)
			}
		}
	}
}
