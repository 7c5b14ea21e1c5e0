package capture

import (
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"capture/internal/pgserver"
)

// writeWAL makes the server write this many megabytes of WAL, without changing the table votes.
func writeWAL(t testing.TB, url string, megabytes int) {
	t.Helper()
	conn := connect(t, url)
	exec(t, conn, "CREATE TABLE IF NOT EXISTS busy (b text)")
	exec(t, conn, "ALTER TABLE busy ALTER b SET STORAGE PLAIN")
	for range megabytes {
		exec(t, conn, "INSERT INTO busy SELECT repeat('x', 7000) FROM generate_series(1, 150)")
	}
}

// TestNothingStaysBehind: capture leaves no slot and no session behind when it stops.
func TestNothingStaysBehind(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 10)
	d := start(t, config(t, url))
	d.ready()
	if n := queryOne[int](t, conn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database() AND temporary"); n != 1 {
		t.Fatalf("%d temporary slots while it runs, want 1", n)
	}
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "nothing left", func() error {
		slots := queryOne[int](t, conn, "SELECT count(*) FROM pg_replication_slots WHERE database = current_database()")
		sessions := queryOne[int](t, conn, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()")
		if slots+sessions > 0 {
			return fmt.Errorf("%d slots and %d sessions", slots, sessions)
		}
		return nil
	})
	// Check that the database can be dropped. An active slot would make DROP DATABASE fail.
	admin := connect(t, pgserver.Shared(t).URL("postgres"))
	name := queryOne[string](t, conn, "SELECT current_database()")
	conn.Close(t.Context())
	exec(t, admin, fmt.Sprintf("DROP DATABASE %q", name))
}

// TestMaxWAL: an open transaction keeps the slot from advancing, so the slot retains WAL. Status reports how much it
// retains, and capture still follows other transactions. If the slot retains more than --max-wal, capture drops it.
func TestMaxWAL(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"checkpoint_timeout": "30s"}})
	url := s.URL("postgres")
	conn := connect(t, url)
	table(t, conn, 10)
	cfg := config(t, url)
	cfg.MaxWAL = 16 << 20
	d := start(t, cfg)
	d.ready()
	open := connect(t, url)
	exec(t, open, "CREATE TABLE other (n int)")
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('another')")
	exec(t, open, "BEGIN")
	exec(t, open, "INSERT INTO other VALUES (1)")
	// The open transaction's WAL is not on disk yet, and no commit will flush it soon. The forced write of the file must not
	// wait for a commit.
	wantWithin(t, 3*time.Second, "a forced flush during an open transaction", func() { d.flushAndCompare(conn, "votes", "vote_id") })
	writeWAL(t, url, 6)
	eventually(t, "Status reports the retained WAL", func() error {
		if n := d.Status().RetainedWAL; n < 4<<20 {
			return fmt.Errorf("%d bytes", n)
		}
		return nil
	})
	writeWAL(t, url, 14)
	d.notReady("--max-wal")
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('while it is open')")
	exec(t, open, "COMMIT")
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
	if n := queryOne[int64](t, conn, "SELECT max(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn))::bigint FROM pg_replication_slots"); n > cfg.MaxWAL {
		t.Errorf("the new slot retains %d bytes", n)
	}
}

// TestSlotLost: while capture does not read, the server removes the WAL that the slot needs, because of max_slot_wal_keep_size.
// capture then copies the table again.
func TestSlotLost(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{
		"max_slot_wal_keep_size": "16MB", "min_wal_size": "32MB", "max_wal_size": "32MB", "wal_keep_size": "0",
	}})
	p := proxied(t, s)
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 10)
	cfg := config(t, p.URL("postgres"))
	cfg.timeouts.Idle = 10 * patience // so long that capture does not end the connection itself; only the server does
	d := start(t, cfg)
	d.ready()
	p.Stall()
	slot := queryOne[string](t, conn, "SELECT slot_name FROM pg_replication_slots")
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('not heard of')")
	eventually(t, "the slot is lost", func() error {
		writeWAL(t, s.URL("postgres"), 20)
		exec(t, conn, "SELECT pg_switch_wal()")
		exec(t, conn, "CHECKPOINT")
		if n := queryOne[int](t, conn, "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1 AND wal_status <> 'lost'", slot); n > 0 {
			return errors.New("it still holds")
		}
		return nil
	})
	p.Unstall()
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
	if n := d.said("copied"); n != 2 {
		t.Errorf("copied %d times, want 2", n)
	}
	if n := d.said("not following") + d.said("resyncing table"); n != 1 {
		t.Errorf("%d log lines about it, want one", n)
	}
}

// TestIdleTable: the votes do not change while the database is busy. The slot retains almost no WAL, because capture
// confirms the WAL positions in the server's keepalives.
func TestIdleTable(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	url := s.URL("postgres")
	conn := connect(t, url)
	table(t, conn, 10)
	cfg := config(t, url)
	cfg.MaxWAL = 24 << 20
	d := start(t, cfg)
	d.ready()
	for range 4 {
		writeWAL(t, url, 12)
		eventually(t, "the slot advances", func() error {
			exec(t, conn, "CHECKPOINT") // the slot's restart_lsn advances at checkpoints only
			if n := queryOne[int64](t, conn, "SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint FROM pg_replication_slots"); n > 1<<20 {
				return fmt.Errorf("it retains %d bytes", n)
			}
			return nil
		})
	}
	if n := d.said("copied"); n != 1 {
		t.Errorf("copied %d times, want once", n)
	}
	confirmed := queryOne[string](t, conn, "SELECT confirmed_flush_lsn::text FROM pg_replication_slots")
	eventually(t, "the status has the confirmed position", func() error {
		lsn := d.Status().LSN
		if !queryOne[bool](t, conn, "SELECT $1::pg_lsn >= $2::pg_lsn", lsn, confirmed) {
			return fmt.Errorf("the status has %s, the server %s", lsn, confirmed)
		}
		return nil
	})
}

// TestNoSlotLeft: all slots are in use. At the start, somebody else has taken the only slot. Later, the connection is cut,
// and the suspended walsender still holds capture's old slot. Each time, Status gives the reason, and capture follows the
// table once the slot is free.
func TestNoSlotLeft(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"max_replication_slots": "1"}})
	p := proxied(t, s)
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 10)
	exec(t, conn, "SELECT pg_create_physical_replication_slot('somebody')")
	d := start(t, config(t, p.URL("postgres")))
	d.notReady("all replication slots are in use", "max_replication_slots")
	exec(t, conn, "SELECT pg_drop_replication_slot('somebody')")
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")

	sender := queryOne[int](t, conn, "SELECT active_pid FROM pg_replication_slots")
	if err := syscall.Kill(sender, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(sender, syscall.SIGCONT) })
	p.Cut()
	d.notReady("all replication slots are in use")
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('meanwhile')")
	if err := syscall.Kill(sender, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
}

// TestNoSenderLeft: the server has no walsender left, as if a standby or a backup used the only walsender. Status names the
// setting max_wal_senders.
func TestNoSenderLeft(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"max_wal_senders": "0"}})
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 10)
	d := start(t, config(t, s.URL("postgres")))
	d.notReady("max_wal_senders")
}

// TestServerStopsWithChangesPending: a server that stops waits until its replicas have confirmed all changes. capture
// confirms the changes that it has in memory, even while it cannot write the file. Therefore, the server stops at once.
func TestServerStopsWithChangesPending(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 10)
	d := start(t, config(t, s.URL("postgres")))
	d.ready()
	restore := d.breakFile()
	exec(t, conn, "INSERT INTO votes (user_query) SELECT 'pending' FROM generate_series(1, 5000)")
	d.notReady("feedback.json")
	wantWithin(t, 2*time.Second, "the server's fast stop", func() {
		if err := s.Stop("fast"); err != nil {
			t.Fatal(err)
		}
	})
	restore()
	eventually(t, "the file has what was pending", func() error {
		if n := strings.Count(strings.Join(d.fileRows(), "\n"), `"pending"`); n != 5000 {
			return fmt.Errorf("%d of 5000 rows", n)
		}
		return nil
	})
}
