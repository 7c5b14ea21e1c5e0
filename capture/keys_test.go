package capture

import (
	"os"
	"testing"

	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// firstRow returns the first row of a View: its key and its line.
func firstRow(v *snapshot.View) (key rowjson.Key, line []byte) {
	for row := range v.From(nil) {
		return row.Key, row.Line
	}
	return nil, nil
}

// TestKeys: the file has one row for each key, and the rows are in the documented order, after a copy and after changes from
// the stream.
func TestKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("compares keys of many types")
	}
	for _, c := range []struct{ name, setup, key, values, order string }{
		{"text in a collation", "CREATE COLLATION odd (provider = icu, locale = 'de-u-kn-true', deterministic = false)", "k text COLLATE odd",
			`('a'), ('B'), ('b10'), ('b9'), ('Ä'), ('z'), (''), (' '), ('𝄞'), ('日本'), ('"'), ('\'), ('a b')`, `k COLLATE "C"`},
		{"citext", "CREATE EXTENSION citext", "k citext", "('a'), ('B'), ('c'), ('D'), ('ä'), ('Z')", `k::text COLLATE "C"`},
		{"uuid", "", "k uuid", "('ffffffff-0000-0000-0000-000000000000'), ('00000000-0000-0000-0000-000000000000'), ('A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'), ('0a000000-0000-0000-0000-000000000001')", "k"},
		{"timestamps", "", "k timestamptz", "('infinity'), ('-infinity'), ('0044-03-15 12:00+00 BC'), ('0045-01-01 00:00+00 BC'), ('0001-01-01+00'), ('2025-06-17 16:58:00.5+02'), ('2025-06-17 16:58:00.45+02'), ('294276-12-31'), ('10000-01-01')", "k"},
		{"dates", "", "k date", "('infinity'), ('4713-01-01 BC'), ('0001-01-01 BC'), ('2024-02-29'), ('5874897-12-31'), ('99999-01-01')", "k"},
		{"integers", "", "k bigint", "('-9223372036854775808'), (9223372036854775807), (0), (-1), (10), (9), (-10)", "k"},
		{"numerics", "", "k numeric", "(0), (-0.001), (1e-20), (-1e30), (1e30), ('NaN'), (10), (9.99), (-10), (100000000000000000000.5), (0.1), (0.01)", "k"},
		{"floats", "", "k double precision", "(0), ('-0.5'), (1e300), (-1e300), ('NaN'), ('Infinity'), ('-Infinity'), (1e-320), (10), (9.5)", "k"},
		{"enum", "CREATE TYPE mood AS ENUM ('z', 'a', 'M')", "k mood", "('z'), ('a'), ('M')", `k::text COLLATE "C"`},
		{"bytea", "", "k bytea", `('\x'), ('\x00'), ('\xff'), ('\x0001'), ('\x7f80')`, "k"},
		{"domain", "CREATE DOMAIN age AS int CHECK (VALUE > -100)", "k age", "(-5), (0), (100), (20), (3)", "k"},
		{"boolean", "", "k boolean", "(true), (false)", "k"},
		{"composite type", "CREATE TYPE pair AS (x int, y text)", "k pair", `(ROW(1, 'b')), (ROW(1, 'a')), (ROW(-1, '')), (ROW(10, NULL))`, `k::text COLLATE "C"`},
		{"array", "", "k int[]", `('{}'), ('{1}'), ('{1,2}'), ('{-1}'), ('{10}')`, `k::text COLLATE "C"`},
		{"range", "", "k int4range", "('[1,5)'), ('empty'), ('(,)'), ('[10,20)')", `k::text COLLATE "C"`},
		{"jsonb", "", "k jsonb", `('{"a": 1}'), ('[]'), ('1'), ('"x"')`, `k::text COLLATE "C"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := connect(t, url)
			if c.setup != "" {
				exec(t, conn, c.setup)
			}
			exec(t, conn, "CREATE TABLE values_ ("+c.key+")")
			exec(t, conn, "INSERT INTO values_ VALUES "+c.values)
			if _, err := conn.Exec(t.Context(), "CREATE TABLE t ("+c.key+", j int, n int, PRIMARY KEY (k, j))"); err != nil {
				t.Fatal(err)
			}
			insert := func(sign string) {
				exec(t, conn, "INSERT INTO t SELECT k, "+sign+"j, 0 FROM values_, generate_series(1, 3) j ORDER BY md5(k::text || j)")
			}
			insert("-")
			order := c.order + ", j"
			cfg := config(t, url)
			cfg.Table = postgres.Name{Table: "t"}
			d := start(t, cfg)
			d.ready()
			d.flushAndCompare(conn, "t", order)
			follow := func(transactions ...func()) {
				t.Helper()
				d.waitStreamed(transactions...)
				d.compare(conn, "t", order)
			}
			run := func(sql string) func() { return func() { exec(t, conn, sql) } }
			follow(func() { insert("") })
			streamed, err := os.ReadFile(d.path)
			if err != nil {
				t.Fatal(err)
			}
			if c.name == "citext" { // for Postgres, k and upper(k) are one key, but their JSON differs
				follow(run("UPDATE t SET k = upper(k::text)"))
				follow(run("UPDATE t SET k = v.k FROM values_ v WHERE v.k = t.k"))
				follow(run("DELETE FROM t WHERE k = 'A' OR k = 'b'"))
			}
			follow(run("UPDATE t SET n = n + 1"), run("UPDATE t SET n = 0, j = j * 10"))
			follow(run("UPDATE t SET j = j / 10"))
			if c.name != "citext" {
				v, err := Export(t.Context(), cfg, nil)
				if err != nil {
					t.Fatal(err)
				}
				sameRows(t, "exported", string(streamed), oracle(t, conn, "t", order))
				if v.Rows() != d.View().Rows() {
					t.Errorf("%d rows exported, %d followed", v.Rows(), d.View().Rows())
				}
			}
			exec(t, conn, "DELETE FROM t WHERE j < 0")
			d.flushAndCompare(conn, "t", order)
		})
	}
}
