package capture

import (
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// TestWideAndLong follows tables with many columns, with long values, with NULL everywhere, and with nothing but a key.
func TestWideAndLong(t *testing.T) {
	if testing.Short() {
		t.Skip("compares very large rows")
	}
	wide := func(definition string) string {
		list := []string{"id int PRIMARY KEY"}
		for i := range 1500 {
			list = append(list, fmt.Sprintf("c%d %s", i, definition))
		}
		return "CREATE TABLE t (" + strings.Join(list, ", ") + ")"
	}
	cases := []struct {
		name  string
		since int
		setup string
		run   []string
	}{
		{"1500 columns", 0, wide("bool"), []string{
			"INSERT INTO t (id, c0, c1499) VALUES (1, true, false), (2, NULL, NULL), (3, NULL, true)", "UPDATE t SET c700 = c0", "UPDATE t SET id = id + 10", "DELETE FROM t WHERE id = 12",
		}},
		{"5 MB", 0, "CREATE TABLE t (id int PRIMARY KEY, n int, s text, b bytea); ALTER TABLE t ALTER s SET STORAGE EXTERNAL", []string{
			`INSERT INTO t SELECT 1, 1, repeat(E'line "of" \\\\ text\n', 190000), decode(repeat('00ff', 250000), 'hex')`, "INSERT INTO t VALUES (2, 2, 'short', NULL)",
			"UPDATE t SET n = n + 1", "UPDATE t SET id = id + 10", "UPDATE t SET s = s || 'end' WHERE id = 11", "DELETE FROM t WHERE id = 11",
		}},
		{"nothing but its key", 0, "CREATE TABLE t (id int PRIMARY KEY)", []string{"INSERT INTO t SELECT generate_series(1, 100)", "UPDATE t SET id = -id WHERE id > 50", "DELETE FROM t WHERE id < -90"}},
		{"a key of all", 0, "CREATE TABLE t (id int, b text, c date, PRIMARY KEY (id, b, c))", []string{"INSERT INTO t SELECT i, 'b', '2020-01-01' FROM generate_series(1, 100) i", "UPDATE t SET b = 'x', c = 'infinity' WHERE id > 50"}},
		{"NULL everywhere", 0, "CREATE TABLE t (id int PRIMARY KEY, a text, b jsonb, c text[], d timestamp, e numeric)", []string{
			"INSERT INTO t (id) SELECT generate_series(1, 100)", "UPDATE t SET a = '', c = '{}' WHERE id < 50", "UPDATE t SET a = NULL, b = 'null', c = '{NULL}'",
		}},
		{"merge", 15, "CREATE TABLE t (id int PRIMARY KEY, a text); INSERT INTO t SELECT i, 'a' FROM generate_series(1, 50) i", []string{
			`MERGE INTO t USING (SELECT generate_series(1, 100) AS id) s ON t.id = s.id WHEN MATCHED AND s.id % 5 = 0 THEN DELETE
				WHEN MATCHED AND s.id % 2 = 0 THEN UPDATE SET a = 'merged' WHEN NOT MATCHED THEN INSERT VALUES (s.id, 'new')`,
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := connect(t, url)
			if major(conn) < c.since {
				return
			}
			if _, err := conn.PgConn().Exec(t.Context(), c.setup).ReadAll(); err != nil {
				t.Fatal(err)
			}
			cfg := config(t, url)
			cfg.Table = postgres.Name{Table: "t"}
			cfg.pageBytes = 300
			cfg.timeouts.Idle = patience // on a busy machine, the server needs long to decode 5 MB, and sends nothing meanwhile
			d := start(t, cfg)
			d.ready()
			for _, sql := range c.run {
				d.waitStreamed(func() { exec(t, conn, sql) })
				d.compare(conn, "t", "id")
			}
			d.flushAndCompare(conn, "t", "id")
			if n := strings.Count(d.log.String(), `"@message":"copied"`); n != 1 {
				t.Errorf("the table was copied %d times", n)
			}
		})
	}
}

// TestOthersInThePublication: a publication of all tables has the changes of other tables, too. One of these tables has the
// same name in another schema, and another table has the same columns. There are also messages of other programs. The file
// must nevertheless equal the followed table.
func TestOthersInThePublication(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, "CREATE PUBLICATION everything FOR ALL TABLES WITH (publish_via_partition_root = true)")
	exec(t, conn, votes)
	exec(t, conn, "CREATE SCHEMA other")
	exec(t, conn, "CREATE TABLE other.votes (LIKE votes INCLUDING ALL)")
	exec(t, conn, "CREATE TABLE twin (LIKE votes INCLUDING ALL)")
	exec(t, conn, "CREATE TABLE parted (vote_id int PRIMARY KEY, comment text) PARTITION BY LIST (vote_id)")
	exec(t, conn, "CREATE TABLE parted_rest PARTITION OF parted DEFAULT")
	d := start(t, config(t, url))
	d.ready()
	var publications int
	if err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_publication").Scan(&publications); err != nil || publications != 1 {
		t.Errorf("%d publications, %v; the one that was there serves", publications, err)
	}
	for _, table := range []string{"votes", "other.votes", "twin", "parted", "votes", "other.votes"} {
		exec(t, conn, fmt.Sprintf("INSERT INTO %s (vote_id, comment) SELECT i + (SELECT coalesce(max(abs(vote_id)), 0) FROM %[1]s), 'of %[1]s' FROM generate_series(1, 20) i", table))
		exec(t, conn, fmt.Sprintf("UPDATE %s SET comment = comment || vote_id, vote_id = -vote_id WHERE vote_id %% 2 = 0", table))
		exec(t, conn, fmt.Sprintf("DELETE FROM %s WHERE vote_id %% 3 = 0", table))
		exec(t, conn, "SELECT pg_logical_emit_message(true, 'votes', 'I am not for you'), pg_logical_emit_message(false, 'capture', '')")
		d.flushAndCompare(conn, "votes", "vote_id")
	}
	for _, sql := range []string{"TRUNCATE other.votes, twin", "ALTER TABLE other.votes DROP comment", "INSERT INTO other.votes (user_query) VALUES ('after')", "DROP TABLE twin"} {
		exec(t, conn, sql)
		d.flushAndCompare(conn, "votes", "vote_id")
	}
	if n := strings.Count(d.log.String(), `"@message":"copied"`); n != 1 {
		t.Errorf("the table was copied %d times", n)
	}
}

// TestLargeTransaction: memory stays within a multiple of the size of the rows. Readers see the whole transaction or nothing of
// it.
func TestLargeTransaction(t *testing.T) {
	if testing.Short() {
		t.Skip("commits a large transaction")
	}
	rows := many(t) / 2
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, "CREATE TABLE t (id int PRIMARY KEY, n int, s text)")
	cfg := config(t, url)
	cfg.Table = postgres.Name{Table: "t"}
	d := start(t, cfg)
	d.ready()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	before := m.HeapAlloc
	var peak atomic.Uint64
	var torn atomic.Int64
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(20 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				return
			case <-tick.C:
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak.Store(max(peak.Load(), m.HeapAlloc))
				if n := d.View().Rows(); n != 0 && n != rows {
					torn.Store(int64(n))
				}
			}
		}
	}()
	exec(t, conn, fmt.Sprintf("INSERT INTO t SELECT i, i, repeat('x', 100) || i FROM generate_series(1, %d) i", rows))
	for _, sql := range []string{"SELECT", "UPDATE t SET n = -n"} {
		exec(t, conn, sql)
		if _, err := d.Snapshot(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	close(stop)
	<-stopped
	bytes := uint64(d.View().Bytes())
	// The heap holds the rows of two states, because the earlier state must stay readable. It may grow to twice that size until
	// the next garbage collection.
	grown, most := peak.Load()-min(before, peak.Load()), 5*bytes+8<<20
	t.Logf("the heap grew by %d MB for %d MB of rows", grown>>20, bytes>>20)
	if grown > most {
		t.Errorf("the heap grew by %d MB for %d MB of rows", grown>>20, bytes>>20)
	}
	if n := torn.Load(); n != 0 {
		t.Errorf("a reader saw %d of %d rows", n, rows)
	}
	d.flushAndCompare(conn, "t", "id")
	exec(t, conn, "DELETE FROM t WHERE id % 10 > 0")
	d.flushAndCompare(conn, "t", "id")
}
