package capture

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"iter"
	"os"
	osexec "os/exec"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/faultproxy"
	"capture/internal/filetest"
	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/internal/verify"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// stale returns the keys of rows that the horizon takes for unchanged although the file lacks them or has other values: what a
// resync would get wrong that trusted the horizon alone.
func (d *daemon) stale(conn *pgx.Conn, h *snapshot.Horizon, table, key string) (keys []string) {
	d.t.Helper()
	known := d.content()
	type unchanged struct{ Key, Line string }
	exec(d.t, conn, "SET TimeZone = 'UTC'")
	rows, err := conn.Query(d.t.Context(), fmt.Sprintf(`SELECT %s::text AS key, row_to_json(t)::text AS line FROM %s t
		WHERE NOT (age(xmin) BETWEEN 0 AND age('%d'::xid) OR age(xmin) = 2147483647)`, key, table, uint32(h.XID)))
	if err != nil {
		d.t.Fatal(err)
	}
	list, err := pgx.CollectRows(rows, pgx.RowToStructByName[unchanged])
	if err != nil {
		d.t.Fatal(err)
	}
	for _, row := range list {
		if !slices.Contains(known, filetest.Compact(row.Line)) {
			keys = append(keys, row.Key)
		}
	}
	return keys
}

// resyncAttacks change the table so that the horizon's rows alone would not tell. Each must end in a copy of the whole table.
// fools says that a resync would have been wrong without the condition; the others are copied to be sure.
var resyncAttacks = []struct {
	what, setup, sql string
	fools            bool
	reason           string // part of the reason for the copy
	since            int    // server version
}{
	{what: "column added with a default", sql: "ALTER TABLE t ADD x text DEFAULT 'old'", fools: true, reason: "definition"},
	{what: "column added, dropped, added with another default", setup: "ALTER TABLE t ADD x text DEFAULT 'old'", sql: "ALTER TABLE t DROP x; ALTER TABLE t ADD x text DEFAULT 'new'", fools: true, reason: "definition"},
	{what: "column dropped", sql: "ALTER TABLE t DROP n", fools: true, reason: "definition"},
	{what: "column renamed", sql: "ALTER TABLE t RENAME n TO number", fools: true, reason: "definition"},
	{what: "columns' names exchanged", sql: "ALTER TABLE t RENAME note TO x; ALTER TABLE t RENAME n TO note; ALTER TABLE t RENAME x TO n", fools: true, reason: "definition"},
	{what: "default of old rows changed in the catalog", setup: "ALTER TABLE t ADD x text DEFAULT 'old'",
		sql: "UPDATE pg_attribute SET attmissingval = (SELECT attmissingval FROM pg_attribute WHERE attrelid = 'donor'::regclass AND attname = 'x') WHERE attrelid = 't'::regclass AND attname = 'x'", fools: true, reason: "definition"},
	{what: "type changed without a rewrite", sql: "ALTER TABLE t ALTER at TYPE timestamptz", fools: true, reason: "definition"},
	{what: "type changed with a rewrite", sql: "ALTER TABLE t ALTER n TYPE bigint", reason: "definition"},
	{what: "same type, other values", sql: "ALTER TABLE t ALTER n TYPE int USING n + 1", reason: "definition"},
	{what: "label renamed", sql: "ALTER TYPE mood RENAME VALUE 'good' TO 'fine'", fools: true, reason: "definition"},
	{what: "attribute of a composite type renamed", sql: "ALTER TYPE pair RENAME ATTRIBUTE a TO b", fools: true, reason: "definition"},
	{what: "attribute of a composite type added", sql: "ALTER TYPE pair ADD ATTRIBUTE c int", fools: true, reason: "definition"},
	{what: "cast to json created", sql: `CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT to_json('mood ' || $1::text) $$; CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood)`, fools: true},
	{what: "virtual column's expression", setup: "ALTER TABLE t ADD v int GENERATED ALWAYS AS (n * 2) VIRTUAL", sql: "ALTER TABLE t ALTER v SET EXPRESSION AS (n * 3)", fools: true, reason: "definition", since: 18},
	{what: "another table takes the name", setup: "CREATE TABLE other (LIKE t INCLUDING ALL); INSERT INTO other SELECT id, n + 1, note, at, m, p FROM t", sql: "ALTER TABLE t RENAME TO old; ALTER TABLE other RENAME TO t", fools: true, reason: "another table"},
	{what: "dropped and created", sql: "CREATE TABLE copy AS SELECT * FROM t; DROP TABLE t; ALTER TABLE copy RENAME TO t; ALTER TABLE t ADD PRIMARY KEY (id)", reason: "another table"},
	{what: "truncated and filled", sql: "CREATE TABLE copy AS SELECT * FROM t; TRUNCATE t; INSERT INTO t SELECT * FROM copy", reason: "rewritten"},
	{what: "VACUUM FULL", sql: "VACUUM FULL t", reason: "rewritten"},
	{what: "CLUSTER", sql: "CLUSTER t USING t_pkey", reason: "rewritten"},
	{what: "another access method", sql: "CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER heap_tableam_handler; ALTER TABLE t SET ACCESS METHOD heap_too", reason: "heap", since: 15},
	{what: "the same values updated in the catalog", sql: "UPDATE pg_attribute SET attname = attname WHERE attrelid = 't'::regclass AND attname = 'n'", reason: "definition"},
}

// TestResyncAttacks runs each attack while capture is disconnected.
func TestResyncAttacks(t *testing.T) {
	if testing.Short() {
		t.Skip("connects for each of many attacks")
	}
	t.Parallel()
	const created = `CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TYPE pair AS (a int); CREATE TABLE donor (id int); ALTER TABLE donor ADD x text DEFAULT 'new';
		CREATE TABLE t (id int PRIMARY KEY, n int, note text, at timestamp, m mood, p pair)`
	for _, a := range resyncAttacks {
		t.Run(a.what, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := connect(t, url)
			if major(conn) < a.since {
				t.Skip("the server cannot do that")
			}
			exec(t, conn, "SET allow_system_table_mods = on")
			exec(t, conn, created)
			exec(t, conn, "INSERT INTO t SELECT i, i, 'note', '2026-01-01', 'good', ROW(i)::pair FROM generate_series(1, 50) i")
			for _, sql := range strings.Split(a.setup, "; ") {
				exec(t, conn, sql)
			}
			attack(t, pgserver.Shared(t), url, conn, func(*daemon, *faultproxy.Proxy) *pgx.Conn {
				for _, sql := range strings.Split(a.sql, "; ") {
					exec(t, conn, sql)
				}
				return conn
			}, a.fools, a.reason)
		})
	}
}

// attack follows table t, runs change while capture is disconnected, and checks that the table is copied for this reason. fools
// says that a resync would be wrong after change. change returns the connection to the database that the table is in then.
func attack(t *testing.T, s *pgserver.Server, url string, conn *pgx.Conn, change func(*daemon, *faultproxy.Proxy) *pgx.Conn, fools bool, reason string) {
	t.Helper()
	p := proxied(t, s)
	cfg := proxiedConfig(t, p, url)
	cfg.Table = postgres.Name{Table: "t"}
	d := start(t, cfg)
	d.ready()
	d.waitHorizon(conn)
	r := d.disconnected(p, func() {
		conn = change(d, p)
		h := d.table.View().Horizon()
		if n := len(d.stale(conn, h, "t", "id")); n > 0 != fools {
			t.Errorf("a resync would get %d rows wrong", n)
		}
	})
	if r.Message != "copied" || !strings.Contains(r.Reason, reason) {
		t.Errorf("%+v, want a copy because of %q", r, reason)
	}
	d.equal(conn, "t", "id")
	// The copy has a horizon again.
	if r := d.disconnected(p, func() { exec(t, conn, "DELETE FROM t WHERE id = 1") }); r.Message != "resynced" && d.table.View().Horizon() != nil {
		t.Errorf("after the copy: %+v", r)
	}
	d.equal(conn, "t", "id")
}

// TestResyncAttacksOnPartitions does the same with partitions: their old rows do not tell that they are new in the table.
func TestResyncAttacksOnPartitions(t *testing.T) {
	if testing.Short() {
		t.Skip("connects for each of several attacks")
	}
	t.Parallel()
	const created = `CREATE TABLE t (id int PRIMARY KEY, n int) PARTITION BY RANGE (id);
		CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100); CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (100) TO (200);
		CREATE TABLE later (id int PRIMARY KEY, n int); CREATE TABLE instead (id int PRIMARY KEY, n int);
		INSERT INTO t SELECT i, i FROM generate_series(1, 150) i; INSERT INTO later SELECT i, i FROM generate_series(200, 250) i;
		INSERT INTO instead SELECT i, -i FROM generate_series(1, 99) i`
	for _, a := range []struct {
		what, sql string
		fools     bool
	}{
		{"attached with old rows", "ALTER TABLE t ATTACH PARTITION later FOR VALUES FROM (200) TO (300)", true},
		{"another partition with the same keys", "ALTER TABLE t DETACH PARTITION t1; ALTER TABLE t ATTACH PARTITION instead FOR VALUES FROM (0) TO (100)", true},
		{"detached", "ALTER TABLE t DETACH PARTITION t1", false},
		{"detached and attached", "ALTER TABLE t DETACH PARTITION t1; ALTER TABLE t ATTACH PARTITION t1 FOR VALUES FROM (0) TO (100)", false},
		{"partition truncated and filled", "CREATE TABLE copy AS SELECT * FROM t1; TRUNCATE t1; INSERT INTO t1 SELECT * FROM copy", false},
		{"partition rewritten", "VACUUM FULL t2", false},
	} {
		t.Run(a.what, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := connect(t, url)
			exec(t, conn, created, pgx.QueryExecModeSimpleProtocol)
			attack(t, pgserver.Shared(t), url, conn, func(*daemon, *faultproxy.Proxy) *pgx.Conn {
				for _, sql := range strings.Split(a.sql, "; ") {
					exec(t, conn, sql)
				}
				return conn
			}, a.fools, "definition")
		})
	}
}

// TestResyncDetachedUpdatedAttached: a partition is detached, updated and attached again in one transaction. The stream never
// has its changes. The regular check finds it, or else the next connection. Either way the table is copied.
func TestResyncDetachedUpdatedAttached(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, `CREATE TABLE t (id int PRIMARY KEY, n int) PARTITION BY RANGE (id); CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (100);
		INSERT INTO t SELECT i, i FROM generate_series(1, 99) i`, pgx.QueryExecModeSimpleProtocol)
	cfg := resyncing(config(t, url))
	cfg.Table = postgres.Name{Table: "t"}
	d := start(t, cfg)
	d.ready()
	d.waitHorizon(conn)
	exec(t, conn, "BEGIN; ALTER TABLE t DETACH PARTITION t1; UPDATE t1 SET n = -1 WHERE id < 50; ALTER TABLE t ATTACH PARTITION t1 FOR VALUES FROM (0) TO (100); COMMIT", pgx.QueryExecModeSimpleProtocol)
	if r := d.cut(conn, func() {}); r.Message != "copied" {
		t.Errorf("%+v", r)
	}
	d.equal(conn, "t", "id")
}

// attackedTable creates table t with a hundred rows.
func attackedTable(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i", pgx.QueryExecModeSimpleProtocol)
}

// TestResyncClonedDatabase: while capture is disconnected, another database takes the name. It was cloned from the first, so
// its table has the same OID, file, places and transactions, and then rows of its own.
func TestResyncClonedDatabase(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	admin := connect(t, s.URL("postgres"))
	exec(t, admin, "CREATE DATABASE app")
	app := connect(t, s.URL("app"))
	attackedTable(t, app)
	exec(t, app, "CREATE PUBLICATION capture FOR TABLE t")
	app.Close(t.Context())
	exec(t, admin, "CREATE DATABASE clone TEMPLATE app")
	clone := connect(t, s.URL("clone"))
	exec(t, clone, "UPDATE t SET n = -n WHERE id < 50")
	clone.Close(t.Context())
	app = connect(t, s.URL("app"))
	attack(t, s, s.URL("app"), app, func(*daemon, *faultproxy.Proxy) *pgx.Conn {
		app.Close(t.Context())
		eventually(t, "nobody uses the databases", func() error {
			if one[int](t, admin, "SELECT count(*) FROM pg_stat_activity WHERE datname IN ('app', 'clone') AND backend_type IN ('client backend', 'walsender')") > 0 {
				return errors.New("somebody does")
			}
			return nil
		})
		exec(t, admin, "ALTER DATABASE app RENAME TO app_old")
		exec(t, admin, "ALTER DATABASE clone RENAME TO app")
		return connect(t, s.URL("app"))
	}, true, "another database")
}

// TestResyncRestarted: a server that was restarted is copied, because it might have been restored meanwhile.
func TestResyncRestarted(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	attackedTable(t, conn)
	attack(t, s, s.URL("postgres"), conn, func(*daemon, *faultproxy.Proxy) *pgx.Conn {
		restart(t, s, nil)
		return connect(t, s.URL("postgres"))
	}, false, "restarted")
}

// restart stops the server, runs change, and starts it again.
func restart(t *testing.T, s *pgserver.Server, change func()) {
	t.Helper()
	if err := s.Stop("fast"); err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change()
	}
	if err := s.StartAgain(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// TestResyncRestoredVolume: the server's volume goes back to an earlier state, and other transactions get the same IDs. System
// identifier, timeline, OIDs and files are the same; only the start time differs.
func TestResyncRestoredVolume(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	url := s.URL("postgres")
	conn := connect(t, url)
	attackedTable(t, conn)
	exec(t, conn, "CREATE PUBLICATION capture FOR TABLE t")
	backup := s.Dir() + ".backup"
	restart(t, s, func() { run(t, "cp", "-a", s.Dir(), backup) })
	conn = connect(t, url)
	exec(t, conn, "UPDATE t SET n = n + 1000 WHERE id < 50")
	attack(t, s, url, conn, func(*daemon, *faultproxy.Proxy) *pgx.Conn {
		restart(t, s, func() {
			run(t, "rm", "-r", s.Dir())
			run(t, "mv", backup, s.Dir())
		})
		conn := connect(t, url)
		exec(t, conn, "UPDATE t SET n = n + 2000 WHERE id < 50")
		exec(t, conn, "SELECT pg_switch_wal()") // the WAL is longer than before
		for range 50 {
			exec(t, conn, "SELECT txid_current()")
		}
		return conn
	}, true, "restarted")
}

func run(t *testing.T, name string, args ...string) {
	t.Helper()
	if out, err := osexec.Command(name, args...).CombinedOutput(); err != nil {
		t.Fatalf("%s %s: %v: %s", name, args, err, out)
	}
}

// TestResyncFailover: a standby that lags is promoted, and its transactions get the IDs of those that it lacks.
func TestResyncFailover(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	attackedTable(t, conn)
	exec(t, conn, "CREATE PUBLICATION capture FOR TABLE t")
	standby, err := s.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	replica := connect(t, standby.URL("postgres"))
	eventually(t, "the standby has the table", func() error {
		_, err := replica.Exec(t.Context(), "SELECT FROM pg_publication_rel, t")
		return err
	})
	if err := standby.Reload(t.Context(), map[string]string{"primary_conninfo": ""}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the standby is alone", func() error {
		if one[int](t, conn, "SELECT count(*) FROM pg_stat_replication WHERE application_name = 'standby'") > 0 {
			return errors.New("it is not")
		}
		return nil
	})
	exec(t, conn, "UPDATE t SET n = n + 1000 WHERE id < 50")
	attack(t, s, s.URL("postgres"), conn, func(_ *daemon, p *faultproxy.Proxy) *pgx.Conn {
		if err := standby.Promote(t.Context()); err != nil {
			t.Fatal(err)
		}
		p.Target(standby.Addr())
		exec(t, replica, "UPDATE t SET n = n + 2000 WHERE id < 50")
		for range 50 {
			exec(t, replica, "SELECT txid_current()")
		}
		return replica
	}, true, "timeline")
}

// TestResyncAnotherCluster: the address leads to another cluster with a table of the same name.
func TestResyncAnotherCluster(t *testing.T) {
	t.Parallel()
	s, other := pgserver.ForTest(t, pgserver.Options{}), pgserver.ForTest(t, pgserver.Options{})
	conn, elsewhere := connect(t, s.URL("postgres")), connect(t, other.URL("postgres"))
	attackedTable(t, conn)
	attackedTable(t, elsewhere)
	exec(t, elsewhere, "UPDATE t SET n = -n WHERE id < 50")
	for range 100 {
		exec(t, conn, "SELECT txid_current()")
	}
	attack(t, s, s.URL("postgres"), conn, func(_ *daemon, p *faultproxy.Proxy) *pgx.Conn {
		p.Target(other.Addr())
		return elsewhere
	}, true, "cluster")
}

// TestResyncAfterTwoBillionTransactions: a horizon 2^31 transactions ago would take every row for an old one.
func TestResyncAfterTwoBillionTransactions(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	attackedTable(t, conn)
	restart(t, s, func() {
		bin, err := pgserver.Bin()
		if err != nil {
			t.Fatal(err)
		}
		owner, err := os.Stat(s.Dir())
		if err != nil {
			t.Fatal(err)
		}
		cmd := osexec.Command(bin+"/pg_resetwal", "-e", "7", s.Dir())
		if st := owner.Sys().(*syscall.Stat_t); os.Getuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: st.Uid, Gid: st.Gid}}
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	})
	conn = connect(t, s.URL("postgres"))
	attack(t, s, s.URL("postgres"), conn, func(d *daemon, _ *faultproxy.Proxy) *pgx.Conn {
		exec(t, conn, "UPDATE t SET n = -n WHERE id < 50")
		h := *d.table.View().Horizon()
		h.XID -= 1<<31 + 1000
		d.table.SetHorizon(&h) // the supervisor waits, so nobody else writes
		return conn
	}, true, "too many transactions")
}

// TestResyncFrozenByForce: pg_surgery makes a row visible again that was deleted, as if it had always been there.
func TestResyncFrozenByForce(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	if !available(t, conn, "pg_surgery") {
		t.Skip("the server has no pg_surgery")
	}
	exec(t, conn, "CREATE EXTENSION pg_surgery")
	attackedTable(t, conn)
	exec(t, conn, "ALTER TABLE t SET (autovacuum_enabled = off)")
	place := one[string](t, conn, "SELECT ctid::text FROM t WHERE id = 7")
	exec(t, conn, "DELETE FROM t WHERE id = 7")
	p := proxied(t, pgserver.Shared(t))
	cfg := proxiedConfig(t, p, url)
	cfg.Table = postgres.Name{Table: "t"}
	d := start(t, cfg)
	d.ready()
	d.waitHorizon(conn)
	r := d.disconnected(p, func() { exec(t, conn, "SELECT heap_force_freeze('t', ARRAY[$1::text::tid])", place) })
	if r.Message != "resynced" || r.Changed != 1 || r.Rows != 100 {
		t.Errorf("%+v", r)
	}
	d.equal(conn, "t", "id")
}

// TestResyncOutOfDoubt: a resync that somebody asks for because the rows may be wrong is a copy, also if the connection is lost
// at the same moment.
func TestResyncOutOfDoubt(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	attackedTable(t, conn)
	p := proxied(t, pgserver.Shared(t))
	cfg := proxiedConfig(t, p, url)
	cfg.Table = postgres.Name{Table: "t"}
	d := start(t, cfg)
	d.ready()
	for _, what := range []string{"while following", "while waiting"} {
		d.waitHorizon(conn)
		var r readLine
		if n := len(d.reads()); what == "while following" {
			d.supervisor.resync("test")
			r = d.waitRead(n)
		} else {
			r = d.disconnected(p, func() { d.supervisor.resync("test") })
		}
		if r.Message != "copied" || !strings.Contains(r.Reason, "not known") {
			t.Errorf("%s: %+v", what, r)
		}
	}
}

// TestResyncUnknownRow: a row that the horizon takes for old, but that memory does not have, ends in a copy. Nothing is known to
// cause this; here the row is removed from memory.
func TestResyncUnknownRow(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	attackedTable(t, conn)
	p := proxied(t, pgserver.Shared(t))
	cfg := proxiedConfig(t, p, url)
	cfg.Table = postgres.Name{Table: "t"}
	d := start(t, cfg)
	d.ready()
	d.waitHorizon(conn)
	r := d.disconnected(p, func() { d.corrupt(func(key rowjson.Key, _ []byte) { d.table.Delete(key) }) })
	if r.Message != "copied" {
		t.Errorf("%+v", r)
	}
	d.equal(conn, "t", "id")
}

// corrupt changes one row in memory by a transaction that the database does not have, and keeps the horizon. The supervisor must
// be waiting, so that nobody else writes.
func (d *daemon) corrupt(change func(key rowjson.Key, line []byte)) {
	d.t.Helper()
	v := d.table.View()
	n := 0
	for row, err := range v.From(nil) {
		if err != nil {
			d.t.Fatal(err)
		}
		if n++; n == 50 {
			change(row.Key, slices.Clone(row.Line))
		}
	}
	if err := d.table.Commit(v.Position()); err != nil {
		d.t.Fatal(err)
	}
}

// TestVerifyFindsMistakeOfResync: if a resync kept a row that it should have read, the regular comparison would find it, and the
// table would be copied. The mistake is injected.
func TestVerifyFindsMistakeOfResync(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	attackedTable(t, conn)
	p := proxied(t, pgserver.Shared(t))
	cfg := proxiedConfig(t, p, url)
	cfg.Table, cfg.VerifyInterval = postgres.Name{Table: "t"}, 100*time.Millisecond
	var comparing atomic.Bool
	cfg.Compare = func(ctx context.Context, database *pgx.ConnConfig, _ int64, newestView func(context.Context) (*snapshot.View, error)) (int64, []string, error) {
		if !comparing.Load() {
			return 0, nil, nil
		}
		found, err := verify.Compare(ctx, verify.Comparison{Database: database, Table: cfg.Table, Live: true,
			State: func(ctx context.Context, _ *postgres.Table) (iter.Seq2[snapshot.Row, error], error) {
				v, err := newestView(ctx)
				if err != nil {
					return nil, err
				}
				return v.From(nil), nil
			}})
		if err != nil || found.Empty() {
			return 0, nil, err
		}
		return found.Different.Rows, []string{"50"}, nil
	}
	d := start(t, cfg)
	d.ready()
	d.waitHorizon(conn)
	r := d.disconnected(p, func() {
		d.corrupt(func(key rowjson.Key, line []byte) {
			d.table.Put(key, bytes.Replace(line, []byte(`"n":50`), []byte(`"n":51`), 1))
		})
	})
	if b, err := os.ReadFile(d.path); r.Message != "resynced" || err != nil || !bytes.Contains(b, []byte(`"n":51}`)) {
		t.Fatalf("the mistake is not there: %+v, %v", r, err)
	}
	n := len(d.reads())
	comparing.Store(true)
	if r := d.waitRead(n); r.Message != "copied" {
		t.Errorf("%+v", r)
	}
	if !strings.Contains(d.log.String(), "rows differ from the table") {
		t.Error("the comparison found nothing")
	}
	d.equal(conn, "t", "id")
}
