package capture

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"capture/internal/faultproxy"
	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/snapshot"
)

// resyncing returns cfg with settings for tests of resyncs. Resyncs transfer only what has changed, even if the table is small.
// The pauses before attempts and between checks are short.
func resyncing(cfg Config) Config {
	cfg.copying.AlwaysResync = true
	cfg.retry, cfg.timeouts.Check = 300*time.Millisecond, 200*time.Millisecond
	return cfg
}

// proxiedConfig returns a configuration for a daemon that reaches the database through the proxy. The settings for
// tests of resyncs come from resyncing.
func proxiedConfig(t testing.TB, p *faultproxy.Proxy, url string) Config {
	t.Helper()
	direct := config(t, url)
	return resyncing(config(t, p.URL(direct.Database.Database)))
}

// readLine is the log line of a copy or a resync.
type readLine struct {
	Message string `json:"@message"`
	Reason  string
	Rows    int
	Changed int
	Deleted int
	Bytes   int
}

// loggedReads parses the log lines of all copies and resyncs so far, and returns them in order.
func (d *daemon) loggedReads() (reads []readLine) {
	d.t.Helper()
	for line := range strings.Lines(d.log.String()) {
		if !strings.Contains(line, `"@message":"copied"`) && !strings.Contains(line, `"@message":"resynced"`) {
			continue
		}
		var r readLine
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			d.t.Fatal(err)
		}
		reads = append(reads, r)
	}
	return reads
}

// waitRead waits until there are more than n reads and the daemon is ready, and returns the last read.
func (d *daemon) waitRead(n int) readLine {
	d.t.Helper()
	eventually(d.t, "another read of the table", func() error {
		if s := d.Status(); len(d.loggedReads()) <= n || !s.Ready {
			return fmt.Errorf("%d reads; %+v", len(d.loggedReads()), s.Checks)
		}
		return nil
	})
	reads := d.loggedReads()
	return reads[len(reads)-1]
}

// cut ends all sessions of capture, calls changeTable, and returns the next read of the table. The daemon may connect again
// before changeTable has returned.
func (d *daemon) cut(conn *pgx.Conn, changeTable func()) readLine {
	d.t.Helper()
	n := len(d.loggedReads())
	exec(d.t, conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'capture'")
	changeTable()
	return d.waitRead(n)
}

// disconnected calls changeTable while capture cannot connect, and returns the next read of the table.
func (d *daemon) disconnected(p *faultproxy.Proxy, changeTable func()) readLine {
	d.t.Helper()
	n := len(d.loggedReads())
	p.Refuse()
	p.Cut()
	eventually(d.t, "the connection is lost", func() error {
		if s := d.Status(); s.State != stateWaiting {
			return errors.New(s.State)
		}
		return nil
	})
	changeTable()
	if err := p.Accept(); err != nil {
		d.t.Fatal(err)
	}
	return d.waitRead(n)
}

// waitHorizon waits until the rows in memory have a horizon above the IDs of all transactions so far. The server must be
// idle.
func (d *daemon) waitHorizon(conn *pgx.Conn) *snapshot.Horizon {
	d.t.Helper()
	next := queryOne[int64](d.t, conn, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8")
	eventually(d.t, "a horizon above all transactions", func() error {
		if _, err := d.Snapshot(d.t.Context()); err != nil {
			return err
		}
		h := d.table.View().Horizon()
		if h == nil || h.XID < uint64(next) {
			return fmt.Errorf("%+v", h)
		}
		return nil
	})
	return d.table.View().Horizon()
}

// identities returns one string for each row version of a table. The string consists of the place and the transaction of the row
// version.
func identities(t testing.TB, conn *pgx.Conn, table string) map[string]bool {
	t.Helper()
	rows, err := conn.Query(t.Context(), "SELECT tableoid || ' ' || ctid || ' ' || xmin FROM "+table)
	if err != nil {
		t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	set := map[string]bool{}
	for _, id := range list {
		set[id] = true
	}
	return set
}

// TestReconnectTransfersChanges: after a lost connection, exactly the rows that changed are transferred, and the rows that were
// deleted disappear. The result does not depend on how the rows were written.
func TestReconnectTransfersChanges(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"autovacuum": "off"}})
	url := s.URL("postgres")
	conn, other := connect(t, url), connect(t, url)
	for _, layout := range []string{"", "PARTITION BY RANGE (id)"} {
		t.Run(layout, func(t *testing.T) {
			exec(t, conn, "DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, n int, note text, long text) "+layout)
			if layout != "" {
				exec(t, conn, "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (MINVALUE) TO (500); CREATE TABLE t2 PARTITION OF t DEFAULT")
			}
			exec(t, conn, "ALTER TABLE t ALTER long SET STORAGE EXTERNAL")
			exec(t, conn, "INSERT INTO t SELECT i, 0, 'note', CASE WHEN i % 5 = 0 THEN repeat('x', 2500) END FROM generate_series(1, 1000) i")
			p := proxied(t, s)
			cfg := proxiedConfig(t, p, url)
			cfg.Table = postgres.Name{Table: "t"}
			cfg.pageBytes = 4000
			d := start(t, cfg)
			d.ready()
			for _, step := range []struct {
				what string
				sql  []string
			}{
				{"nothing", nil},
				{"update", []string{"UPDATE t SET n = n + 1 WHERE id % 100 = 0"}},
				{"update of the long value", []string{"UPDATE t SET long = repeat('y', 2600) WHERE id % 101 = 0"}},
				{"the same row again and again", []string{"UPDATE t SET n = n + 1 WHERE id = 7", "UPDATE t SET n = n + 1 WHERE id = 7", "VACUUM t", "UPDATE t SET n = n + 1 WHERE id = 7"}},
				{"insert and delete", []string{"INSERT INTO t SELECT i, 1, 'new' FROM generate_series(2001, 2020) i", "DELETE FROM t WHERE id % 50 = 3", "DELETE FROM t WHERE id = 2003"}},
				{"delete, vacuum, insert in the same place", []string{"DELETE FROM t WHERE id BETWEEN 600 AND 700", "VACUUM t", "INSERT INTO t SELECT i, 1, 'back' FROM generate_series(600, 640) i"}},
				{"keys that move between partitions", []string{"UPDATE t SET id = id + 4000 WHERE id BETWEEN 100 AND 110"}},
				{"savepoints", []string{`BEGIN; UPDATE t SET n = 50 WHERE id = 1; SAVEPOINT a; UPDATE t SET n = 51 WHERE id = 2; SAVEPOINT b; UPDATE t SET n = 52 WHERE id = 4;
					ROLLBACK TO b; UPDATE t SET n = 53 WHERE id = 5; RELEASE a; SAVEPOINT c; UPDATE t SET n = 54 WHERE id = 6; COMMIT`}},
				{"rolled back", []string{"BEGIN; UPDATE t SET n = 99; ROLLBACK"}},
				{"row locks", []string{"BEGIN; SELECT 1 FROM t FOR UPDATE; COMMIT", "BEGIN; SELECT 1 FROM t FOR KEY SHARE; SAVEPOINT a; SELECT 1 FROM t FOR NO KEY UPDATE; COMMIT"}},
				{"frozen", []string{"UPDATE t SET n = n + 1 WHERE id % 90 = 1", "VACUUM (FREEZE) t", "UPDATE t SET n = n + 1 WHERE id % 90 = 2"}},
				{"two-phase commit", []string{"BEGIN; UPDATE t SET note = 'prepared' WHERE id % 70 = 1; SAVEPOINT a; INSERT INTO t VALUES (9001); PREPARE TRANSACTION 'resync'", "UPDATE t SET note = 'between' WHERE id % 70 = 2", "COMMIT PREPARED 'resync'"}},
			} {
				d.waitHorizon(conn)
				before, shown := identities(t, conn, "t"), queryOne[[]int](t, conn, "SELECT array_agg(id) FROM t")
				r := d.disconnected(p, func() {
					for i, sql := range step.sql {
						exec(t, []*pgx.Conn{conn, other}[i%2], sql, pgx.QueryExecModeSimpleProtocol)
					}
				})
				changed := 0
				after := identities(t, conn, "t")
				for id := range after {
					if !before[id] {
						changed++
					}
				}
				deleted := queryOne[int](t, conn, "SELECT count(*) FROM unnest($1::int[]) id WHERE id NOT IN (SELECT id FROM t)", shown)
				if want := (readLine{Message: "resynced", Rows: len(after), Changed: changed, Deleted: deleted, Bytes: r.Bytes}); r != want {
					t.Errorf("%s: %+v, want %+v", step.what, r, want)
				}
				d.flushAndCompare(conn, "t", "id")
			}
		})
	}
}

// TestResyncOmittedRows: rows that do not fit into memory stay omitted in a resync if they have not changed. If they have
// changed, they are treated like other rows.
func TestResyncOmittedRows(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (vote_id, comment) SELECT i, repeat('x', CASE i % 10 WHEN 0 THEN 300000 WHEN 1 THEN 70000 ELSE 10 END) FROM generate_series(1, 60) i")
	p := proxied(t, pgserver.Shared(t))
	cfg := proxiedConfig(t, p, url)
	cfg.maxRowBytes = 60_000
	d := start(t, cfg)
	omitted := func(want int) {
		t.Helper()
		eventually(t, "rows are omitted", func() error {
			if s := d.Status(); s.State != stateFollowing || s.Omitted != want || s.Rows != 60-want {
				return fmt.Errorf("%d rows and %d omitted, want %d", s.Rows, s.Omitted, want)
			}
			return nil
		})
	}
	omitted(12)
	// Forced flushes advance the horizon, even while rows are omitted.
	next := queryOne[int64](t, conn, "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::int8")
	eventually(t, "a horizon above all transactions", func() error {
		if _, err := d.Snapshot(t.Context()); err != nil {
			return err
		}
		if h := d.table.View().Horizon(); h == nil || h.XID < uint64(next) {
			return fmt.Errorf("%+v", h)
		}
		return nil
	})
	n := len(d.loggedReads())
	p.Refuse()
	p.Cut()
	exec(t, conn, "UPDATE votes SET comment = 'small' WHERE vote_id = 10") // this row fits now
	exec(t, conn, "UPDATE votes SET comment = repeat('y', 400000) WHERE vote_id IN (2, 20)")
	exec(t, conn, "UPDATE votes SET comment = repeat('y', 80000) WHERE vote_id IN (3, 21)")
	exec(t, conn, "UPDATE votes SET comment = 'fits' WHERE vote_id = 4")
	exec(t, conn, "UPDATE votes SET vote_id = 1000 WHERE vote_id = 30")
	exec(t, conn, "DELETE FROM votes WHERE vote_id = 31")
	exec(t, conn, "INSERT INTO votes (vote_id, comment) VALUES (2000, 'new')")
	if err := p.Accept(); err != nil {
		t.Fatal(err)
	}
	// It is not enough to wait for the state "following", because capture stays in this state until it notices the cut.
	eventually(t, "another read of the table", func() error {
		if len(d.loggedReads()) == n {
			return errors.New("none yet")
		}
		return nil
	})
	omitted(12)
	if r := d.loggedReads(); len(r) != n+1 || r[n].Message != "resynced" || r[n].Changed != 8 || r[n].Rows != 60 {
		t.Errorf("%+v", r)
	}
	exec(t, conn, "DELETE FROM votes WHERE length(comment) > 60000")
	eventually(t, "all rows fit", func() error {
		if s := d.Status(); !s.Ready {
			return fmt.Errorf("%+v", s.Checks)
		}
		return nil
	})
	d.flushAndCompare(conn, "votes", "vote_id")
	if r := d.loggedReads(); len(r) != n+1 {
		t.Errorf("%+v", r)
	}
}

// TestResyncLargerThanMemory: most rows are spilled, and their keys do not arrive in the order of the file. A resync
// nevertheless transfers only what has changed.
func TestResyncLargerThanMemory(t *testing.T) {
	if testing.Short() {
		t.Skip("fills a table that is larger than the memory")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	exec(t, conn, "INSERT INTO votes (vote_id, user_query, bot_response) SELECT i, 'question ' || i, repeat(md5(i::text), 60) FROM generate_series(1, 4000) i ORDER BY md5(i::text)")
	p := proxied(t, pgserver.Shared(t))
	cfg := proxiedConfig(t, p, url)
	cfg.MemoryLimit = 1 // the limit is so low that rows get only the minimum memory
	d := start(t, cfg)
	d.ready()
	d.waitHorizon(conn)
	r := d.disconnected(p, func() {
		exec(t, conn, "UPDATE votes SET comment = 'changed' WHERE vote_id % 40 = 1")
		exec(t, conn, "DELETE FROM votes WHERE vote_id % 80 = 2")
		exec(t, conn, "INSERT INTO votes (vote_id, user_query) VALUES (9000, 'new')")
	})
	if want := (readLine{Message: "resynced", Rows: 3951, Changed: 101, Deleted: 50, Bytes: r.Bytes}); r != want {
		t.Errorf("%+v, want %+v", r, want)
	}
	if m := d.Status().Memory; m == nil || m.Spilled < 2<<20 || m.Resident > m.Limit {
		t.Errorf("not spilled: %+v", m)
	}
	d.flushAndCompare(conn, "votes", "vote_id")
}

// TestResyncOpenTransactions: when the horizon is read, some transactions are open or prepared, and others with higher IDs
// have already ended. The open and prepared ones commit while capture is disconnected. The horizon must stay below their
// IDs, because the resync would otherwise miss their changes.
func TestResyncOpenTransactions(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	url := s.URL("postgres")
	conn, open, prepared := connect(t, url), connect(t, url), connect(t, url)
	attackedTable(t, conn)
	p := proxied(t, s)
	cfg := proxiedConfig(t, p, url)
	cfg.Table = postgres.Name{Table: "t"}
	d := start(t, cfg)
	d.ready()
	before := d.waitHorizon(conn)
	exec(t, prepared, "BEGIN; UPDATE t SET n = -3 WHERE id = 3; SAVEPOINT a; UPDATE t SET n = -4 WHERE id = 4; PREPARE TRANSACTION 'resync'", pgx.QueryExecModeSimpleProtocol)
	exec(t, open, "BEGIN; UPDATE t SET n = -1 WHERE id = 1", pgx.QueryExecModeSimpleProtocol)
	for i := range 20 {
		exec(t, conn, "UPDATE t SET n = 1000 + n WHERE id = $1", 50+i)
	}
	exec(t, open, "SAVEPOINT a; UPDATE t SET n = -2 WHERE id = 2; RELEASE a; DELETE FROM t WHERE id = 5", pgx.QueryExecModeSimpleProtocol)
	exec(t, conn, "UPDATE t SET n = 1000 + n WHERE id = 90")
	lsn := queryOne[string](t, conn, "SELECT pg_current_wal_insert_lsn()::text")
	eventually(t, "a horizon of now", func() error {
		if _, err := d.Snapshot(t.Context()); err != nil {
			return err
		}
		h := d.table.View().Horizon()
		if at, err := pglogrepl.ParseLSN(lsn); err != nil || h == nil || h.LSN < at || h.XID < before.XID {
			return fmt.Errorf("%+v, want one after %s: %v", h, lsn, err)
		}
		return nil
	})
	r := d.disconnected(p, func() {
		exec(t, open, "COMMIT")
		exec(t, conn, "COMMIT PREPARED 'resync'")
	})
	if r.Message != "resynced" || r.Deleted != 1 || r.Changed != 25 {
		t.Errorf("%+v", r)
	}
	d.flushAndCompare(conn, "t", "id")
}
