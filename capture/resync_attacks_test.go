package capture

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"capture/internal/faultproxy"
	"capture/internal/filetest"
	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/snapshot"
)

// staleKeys returns the keys of rows that look unchanged since the horizon, although the file lacks them or has other
// values. A resync that trusted the horizon alone would get these rows wrong.
func (d *daemon) staleKeys(conn *pgx.Conn, h *snapshot.Horizon, table, key string) (keys []string) {
	d.t.Helper()
	known := d.fileRows()
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

// resyncAttacks change the table in ways that the horizon alone does not reveal. Each must end in a copy of the whole table.
// An attack with fools set would make a resync give wrong rows. The other attacks cause a copy only as a precaution.
var resyncAttacks = []struct {
	what, setup, sql string
	fools            bool
	reason           string // part of the reason for the copy
	forever          bool   // whether every later read is a copy, too, because capture can no longer use a horizon for this table
	since            int    // first major version of the server in which the attack is possible
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
	{what: "cast to json created", sql: `CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE sql IMMUTABLE AS $$ SELECT to_json('mood ' || $1::text) $$; CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood)`, fools: true, forever: true},
	{what: "virtual column's expression", setup: "ALTER TABLE t ADD v int GENERATED ALWAYS AS (n * 2) VIRTUAL", sql: "ALTER PUBLICATION capture_t DROP TABLE t; ALTER TABLE t ALTER v SET EXPRESSION AS (n * 3); ALTER PUBLICATION capture_t ADD TABLE t", fools: true, reason: "definition", since: 18},
	{what: "another table takes the name", setup: "CREATE TABLE other (LIKE t INCLUDING ALL); INSERT INTO other SELECT id, n + 1, note, at, m, p FROM t", sql: "ALTER TABLE t RENAME TO old; ALTER TABLE other RENAME TO t", fools: true, reason: "another table"},
	{what: "dropped and created", sql: "CREATE TABLE copy AS SELECT * FROM t; DROP TABLE t; ALTER TABLE copy RENAME TO t; ALTER TABLE t ADD PRIMARY KEY (id)", reason: "another table"},
	{what: "truncated and filled", sql: "CREATE TABLE copy AS SELECT * FROM t; TRUNCATE t; INSERT INTO t SELECT * FROM copy", reason: "rewritten"},
	{what: "VACUUM FULL", sql: "VACUUM FULL t", reason: "rewritten"},
	{what: "CLUSTER", sql: "CLUSTER t USING t_pkey", reason: "rewritten"},
	{what: "another access method", sql: "CREATE ACCESS METHOD heap_too TYPE TABLE HANDLER heap_tableam_handler; ALTER TABLE t SET ACCESS METHOD heap_too", reason: "heap", forever: true, since: 15},
	{what: "the same values updated in the catalog", sql: "UPDATE pg_attribute SET attname = attname WHERE attrelid = 't'::regclass AND attname = 'n'", reason: "definition"},
}

// TestResyncAttacks runs each of resyncAttacks while capture is disconnected.
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
			}, outcome{fools: a.fools, reason: a.reason, forever: a.forever})
		})
	}
}

// outcome is what an attack must cause.
type outcome struct {
	fools   bool   // whether a resync after the attack would give wrong rows
	reason  string // part of the reason for the copy of the whole table
	forever bool   // whether every later read is a copy, too, because capture can no longer use a horizon for the table
}

// attack starts a daemon that follows table t, calls changeTable while the daemon is disconnected, and checks the
// outcome. changeTable attacks the table, and returns a connection to the database that contains the table afterwards.
func attack(t *testing.T, s *pgserver.Server, url string, conn *pgx.Conn, changeTable func(*daemon, *faultproxy.Proxy) *pgx.Conn, want outcome) {
	t.Helper()
	p := proxied(t, s)
	cfg := proxiedConfig(t, p, url)
	cfg.Table = postgres.Name{Table: "t"}
	d := start(t, cfg)
	d.ready()
	d.waitHorizon(conn)
	r := d.disconnected(p, func() {
		conn = changeTable(d, p)
		h := d.table.View().Horizon()
		if n := len(d.staleKeys(conn, h, "t", "id")); n > 0 != want.fools {
			t.Errorf("a resync would get %d rows wrong", n)
		}
	})
	if r.Message != "copied" || !strings.Contains(r.Reason, want.reason) {
		t.Errorf("%+v, want a copy because of %q", r, want.reason)
	}
	d.flushAndCompare(conn, "t", "id")
	again := "copied"
	if !want.forever {
		again = "resynced"
		d.waitHorizon(conn)
	}
	if r := d.disconnected(p, func() { exec(t, conn, "DELETE FROM t WHERE id = 1") }); r.Message != again {
		t.Errorf("the next read is %+v, want %q", r, again)
	}
	d.flushAndCompare(conn, "t", "id")
}

// TestResyncAttacksOnPartitions runs attacks on the partitions of a table while capture is disconnected. The rows of an
// attached partition are new in the table, but their row versions are older than the horizon, so a resync would treat them as
// unchanged. Therefore, capture must copy the whole table.
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
			}, outcome{fools: a.fools, reason: "definition"})
		})
	}
}

// TestResyncDetachedUpdatedAttached: a partition is detached, updated and attached again in one transaction. These changes
// never reach the stream. The regular check or the next connection finds them, and the table is copied.
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
	d.flushAndCompare(conn, "t", "id")
}

// attackedTable creates table t with a hundred rows.
func attackedTable(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, "CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i", pgx.QueryExecModeSimpleProtocol)
}
