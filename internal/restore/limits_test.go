package restore_test

import (
	"fmt"
	"strings"
	"testing"

	"capture/internal/restore"
)

// TestTableWithTheMostColumns checks restores into tables with 1598, 1599 and 1600 columns. Postgres allows 1600 columns.
// The staging table has room for two additional columns only if the table has 1598 columns.
func TestTableWithTheMostColumns(t *testing.T) {
	if testing.Short() {
		t.Skip("restores a table of 1600 columns")
	}
	t.Parallel()
	for _, n := range []int{1598, 1599, 1600} {
		d := newDB(t)
		columns := []string{"id int PRIMARY KEY", "pos int UNIQUE"}
		for i := len(columns); i < n; i++ {
			columns = append(columns, fmt.Sprintf("c%d bool", i))
		}
		d.Exec("CREATE TABLE t (" + strings.Join(columns, ", ") + "); INSERT INTO t (id, pos, c2, c1500) SELECT i, i, true, i % 2 = 0 FROM generate_series(1, 20) i")
		path := d.Export("t")
		d.Exec("DELETE FROM t WHERE id < 3; INSERT INTO t VALUES (30)")
		if res := d.restore(restore.Options{Path: path, OnConflict: restore.Skip, DryRun: true}); res.Inserted.Rows+res.Skipped.Rows != 20 {
			t.Errorf("%+v", res)
		}
		d.Exec("UPDATE t SET pos = -pos; UPDATE t SET pos = 21 + pos; UPDATE t SET c1500 = NULL WHERE id = 20")
		d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true})
		d.wantEqual(path, "t")
		if n == 1599 {
			continue // the staging table for 1599 columns is like that for 1600 columns
		}
		d.wantRefused(restore.Options{Path: d.WriteFile("[{\"id\":101,\"pos\":101},\n{\"id\":102,\"pos\":5}]"), Table: d.Name("t"), OnConflict: restore.Skip}, "line 2 (id 102)")
		wide := func(pos int) string {
			names := []string{`"id":100`, fmt.Sprintf(`"pos":%d`, pos)}
			for i := 2; i < n; i++ {
				names = append(names, fmt.Sprintf(`"c%d":null`, i))
			}
			return "{" + strings.Join(names, ",") + "}"
		}
		d.wantRefused(restore.Options{Path: d.WriteFile("[" + strings.Replace(wide(100), ":100", ":99", 1) + ",\n" + wide(5) + "]"), Table: d.Name("t"), OnConflict: restore.Skip}, " 2 (id 100)")
		d.wantRefused(restore.Options{Path: d.WriteFile("[" + wide(100) + ",\n" + wide(5) + "]"), Table: d.Name("t"), OnConflict: restore.Skip}, "the key 100 twice", "1 and 2")
	}
}

// TestTypesWithACastToJSON checks restores of types that have their own cast to json, such as PostGIS' geometry. row_to_json
// uses this cast.
func TestTypesWithACastToJSON(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	// The input function of type geo reads JSON, and its output function prints hexadecimal digits. The cast of type mood
	// returns an object that mood's input function cannot read. The cast of type shout returns "A" for both labels of the
	// enum.
	d.Exec(`CREATE TYPE geo; CREATE FUNCTION geo_in(cstring) RETURNS geo LANGUAGE internal IMMUTABLE STRICT AS 'json_in'; CREATE FUNCTION geo_out(geo) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'byteaout';
		CREATE TYPE geo (INPUT = geo_in, OUTPUT = geo_out, LIKE = json); CREATE CAST (geo AS text) WITHOUT FUNCTION;
		CREATE FUNCTION geo_json(geo) RETURNS json LANGUAGE sql IMMUTABLE STRICT AS 'SELECT $1::text::json'; CREATE CAST (geo AS json) WITH FUNCTION geo_json(geo);
		CREATE TYPE mood AS ENUM ('sad', 'glad'); CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT json_build_object('mood', $1::text) $$; CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood);
		CREATE TYPE shout AS ENUM ('a', 'A'); CREATE FUNCTION shout_json(shout) RETURNS json LANGUAGE sql IMMUTABLE STRICT AS $$ SELECT to_json(upper($1::text)) $$; CREATE CAST (shout AS json) WITH FUNCTION shout_json(shout);
		CREATE TABLE g (id int PRIMARY KEY, g geo, gs geo[]); INSERT INTO g VALUES (1, '{"type": "Point", "coordinates": [1, 2.5]}', ARRAY['{"a": "b\"c"}', NULL]::geo[]), (2, '[1, "x"]', NULL), (3, NULL, '{}')`)
	path := d.Export("g")
	d.Exec(`UPDATE g SET g = '{"a": 1}' WHERE id < 3; DELETE FROM g WHERE id = 3`)
	d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true})
	d.wantEqual(path, "g")
	d.Exec("TRUNCATE g")
	d.restore(restore.Options{Path: path})
	d.wantEqual(path, "g")

	d.Exec("CREATE TABLE m (id int PRIMARY KEY, m mood); INSERT INTO m VALUES (1, NULL), (2, 'sad')")
	path = d.Export("m")
	d.Exec("TRUNCATE m")
	d.wantRefused(restore.Options{Path: path}, "line 3 (id 2)", `column "m"`, "cast to json")
	d.Exec("CREATE TABLE s (id int PRIMARY KEY, s shout); INSERT INTO s VALUES (1, NULL), (2, 'A'), (3, 'a')")
	path = d.Export("s")
	d.Exec("UPDATE s SET s = NULL WHERE id = 3")
	res := d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite})
	if res.Overwritten.Rows != 1 {
		t.Errorf("%+v", res)
	}
	d.wantEqual(path, "s") // both values of shout are written as "A"
}

// TestPostGIS checks restores of geometries, if the server has the extension.
func TestPostGIS(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	if d.Query("SELECT count(*) FROM pg_available_extensions WHERE name = 'postgis'") == "0" {
		t.Skip("this server has no PostGIS")
	}
	d.Exec(`CREATE EXTENSION postgis; CREATE TABLE g (id int PRIMARY KEY, p geometry(Point,4326), q geometry, ps geometry[]);
		INSERT INTO g VALUES (1, 'SRID=4326;POINT(13.4 52.5)', 'SRID=4326;POLYGON((0 0,1 0,1 1,0 0))', ARRAY['SRID=4326;POINT(1 2)'::geometry, NULL]), (2, NULL, 'SRID=3857;POINT(100 200)', '{}')`)
	path := d.Export("g")
	d.Exec("UPDATE g SET p = NULL, q = NULL")
	d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite})
	d.wantEqual(path, "g")
	d.Exec("TRUNCATE g")
	d.restore(restore.Options{Path: path})
	d.wantEqual(path, "g")
	d.wantRefused(restore.Options{Path: d.WriteFile("[{\"id\":8,\"p\":null},\n{\"id\":9,\"p\":{\"type\":\"SECRET\"}}]"), Table: d.Name("g")}, "line 2 (id 9)", `column "p"`)
}

// TestMoneyOfAnotherLocale checks that a restore refuses money values that were written under another lc_monetary.
func TestMoneyOfAnotherLocale(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec("CREATE TABLE t (id int PRIMARY KEY, price money, prices money[])")
	for _, bad := range []string{`"1.234,56 €"`, `"1.234"`, `"12,34"`} {
		path := d.WriteFile("[{\"id\":1,\"price\":\"$1,234.56\",\"prices\":[\"$0.10\"]},\n{\"id\":2,\"price\":" + bad + ",\"prices\":null}]")
		for _, o := range []restore.Options{{}, {OnConflict: restore.Skip}, {OnConflict: restore.Overwrite, DeleteExtra: true}} {
			o.Path, o.Table = path, d.Name("t")
			d.wantRefused(o, "line 2 (id 2)", `column "price"`, "lc_monetary")
		}
	}
	d.wantRefused(restore.Options{Path: d.WriteFile(`[{"id":1,"price":null,"prices":["1.234"]}]`), Table: d.Name("t")}, `column "prices"`, "lc_monetary")
	d.restore(restore.Options{Path: d.WriteFile(`[{"id":1,"price":"$1,234.56","prices":["$0.10",null]}]`), Table: d.Name("t")})
	if got := d.Query("SELECT price, prices FROM t"); got != "$1,234.56|{$0.10,NULL}" {
		t.Errorf("the row is %s", got)
	}
	// A composite gets NULL in fields that the file lacks.
	d.Exec("CREATE TYPE offer AS (name text, price money); CREATE TABLE o (id int PRIMARY KEY, o offer, os offer[])")
	d.wantRefused(restore.Options{Path: d.WriteFile(`[{"id":1,"o":{"price":"1.234"},"os":null}]`), Table: d.Name("o")}, `column "o"`, "lc_monetary")
	d.restore(restore.Options{Path: d.WriteFile(`[{"id":1,"o":{"price":"$1,234.56"},"os":[{"name":"x"},null]}]`), Table: d.Name("o")})
	if got := d.Query("SELECT o, os FROM o"); got != `(,"$1,234.56")|{"(x,)",NULL}` {
		t.Errorf("the row is %s", got)
	}
}

// TestTypesThatRound checks that a restore refuses values that the table's types would round.
func TestTypesThatRound(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec("CREATE TABLE t (id int PRIMARY KEY, n numeric(10,3), at timestamp, f float8, c text); INSERT INTO t VALUES (1, 1.5, '2026-01-01 00:00:00', 0.5, 'a'), (2, 1.555, '2026-01-01 00:00:00.25', 0.123456789, 'b')")
	path := d.Export("t")
	for column, change := range map[string]string{
		"n":  "ALTER TABLE t ALTER n TYPE numeric(10,2)",
		"at": "ALTER TABLE t ALTER at TYPE timestamp(0)",
		"f":  "ALTER TABLE t ALTER f TYPE real",
	} {
		d.Exec("BEGIN; CREATE TABLE copy (LIKE t INCLUDING ALL); COMMIT; TRUNCATE t; " + change)
		d.wantRefused(restore.Options{Path: path}, "line 3 (id 2)", `column "`+column+`"`, "would change")
		d.Exec("DROP TABLE t; ALTER TABLE copy RENAME TO t")
	}
	d.Exec("TRUNCATE t; ALTER TABLE t ALTER id TYPE bigint, ALTER n TYPE numeric, ALTER at TYPE timestamptz, ALTER c TYPE varchar(20)")
	res := d.restore(restore.Options{Path: path})
	if got := strings.Join(res.Notes, "\n"); !strings.Contains(got, `column "at" is timestamp with time zone, and was timestamp without time zone in the file`) {
		t.Errorf("the notes are %s", got)
	}
	if got := d.Query("SELECT id, n, at AT TIME ZONE 'UTC', f, c FROM t WHERE id = 2"); got != "2|1.555|2026-01-01 00:00:00.25|0.123456789|b" {
		t.Errorf("the row is %s", got)
	}
}

// TestDomainsThatRound checks that a restore refuses values that a domain or a composite type would round. The manifest
// contains only the names of types. So the table's type can have the same name as in the manifest, but another definition.
func TestDomainsThatRound(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	const types = "DROP TABLE IF EXISTS t; DROP TYPE IF EXISTS pair; DROP DOMAIN IF EXISTS price, stamp, low; CREATE DOMAIN low AS numeric(5,1); "
	const usual = "CREATE DOMAIN price AS numeric; CREATE DOMAIN stamp AS timestamp; CREATE TYPE pair AS (a text, b numeric); "
	const table = "CREATE TABLE t (id int PRIMARY KEY, v price, n numeric, list price[], at stamp, stamps stamp[], p pair, i bigint)"
	d.Exec("CREATE SCHEMA app; CREATE DOMAIN app.price AS numeric(5,1); CREATE DOMAIN app.stamp AS timestamp(0); CREATE TYPE app.pair AS (a text, b numeric(5,1))")
	d.Exec(types + usual + table + `; INSERT INTO t VALUES (1, 1, 1, '{1}', '2026-01-01', '{}', '(x,1)', 1),
		(2, 1.239, 1.239, '{1,1.239}', '2026-01-01 00:00:00.25', '{2026-01-01 00:00:00.25}', '(x,1.239)', 9007199254740993)`)
	path := d.Export("t")
	// In the schema app, the types with the same names round their values.
	for _, change := range []string{"v price", "list price[]", "at stamp", "stamps stamp[]", "p pair"} {
		column, typ, _ := strings.Cut(change, " ")
		d.Exec(types + usual + strings.Replace(table, ", "+change, ", "+column+" app."+typ, 1))
		d.wantRefused(restore.Options{Path: path}, "line 3 (id 2)", `column "`+column+`"`, "would change")
	}
	for column, changed := range map[string]string{
		"v":    types + strings.Replace(usual, "price AS numeric", "price AS numeric(5,1)", 1) + strings.Replace(table, "price[]", "numeric[]", 1),
		"n":    types + usual + strings.Replace(table, "n numeric", "n low", 1),
		"list": types + usual + strings.Replace(table, "price[]", "low[]", 1),
		"at":   types + strings.Replace(usual, "stamp AS timestamp", "stamp AS timestamp(0)", 1) + strings.Replace(table, "stamps stamp", "stamps timestamp", 1),
		"p":    types + strings.Replace(usual, "b numeric", "b numeric(5,1)", 1) + table,
		"i":    types + usual + strings.Replace(table, "i bigint", "i double precision", 1),
	} {
		d.Exec(changed)
		d.wantRefused(restore.Options{Path: path}, "line 3 (id 2)", `column "`+column+`"`, "would change")
	}
	// If the composite type has an additional attribute and no other change, the restore keeps the values.
	d.Exec(types + usual + table + "; ALTER TYPE pair ADD ATTRIBUTE c int")
	d.restore(restore.Options{Path: path})
	if got := d.Query("SELECT p FROM t WHERE id = 2"); got != "(x,1.239,)" {
		t.Errorf("the composite is %s", got)
	}
	d.Exec(types + strings.Replace(usual, "b numeric", "b numeric(5,1), c int", 1) + table)
	d.wantRefused(restore.Options{Path: path}, "line 3 (id 2)", `column "p"`, "would change")
	d.Exec(types + usual + table)
	d.restore(restore.Options{Path: path})
	d.wantEqual(path, "t")
	// Types that do not round accept all numbers of a file without a manifest.
	d.Exec(types + usual + "CREATE TABLE t (id text PRIMARY KEY, v text, n price, list text, at text, stamps text, p text, i numeric)")
	plain := d.WriteFile(`[{"id": "1", "v": "1.50", "n": 1.50, "list": "x", "at": "y", "stamps": "y", "p": "z", "i": 9007199254740993}]`)
	d.restore(restore.Options{Path: plain, Table: d.Name("t")})
	if got := d.Query("SELECT n, i FROM t"); got != "1.50|9007199254740993" {
		t.Errorf("the row is %s", got)
	}
}

// TestTypesOfAnotherKind checks restores into columns whose types print numbers where the file has strings, or strings where
// the file has numbers. A restore refuses only numbers that a type would round.
func TestTypesOfAnotherKind(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec("CREATE TYPE pair AS (a text, b numeric(5,1)); CREATE TYPE words AS (a text, b text); CREATE TYPE mixed AS (b numeric(5,1), yes bool, at timestamp, j jsonb)")
	restoreAs := func(from, value, to string) (path string) {
		d.Exec(fmt.Sprintf("DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, v %s); INSERT INTO t VALUES (1, NULL), (2, %s)", from, value))
		path = d.Export("t")
		d.Exec("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, v " + to + ")")
		return path
	}
	for _, c := range []struct{ from, value, to, want string }{
		{"text[]", "'{1,2}'", "integer[]", "{1,2}"},
		{"text[]", "'{NULL,1.5}'", "numeric(5,1)[]", "{NULL,1.5}"},
		{"text[]", "'{{1.0},{2}}'", "float8[]", "{{1},{2}}"},
		{"jsonb", `'["1", 2]'`, "integer[]", "{1,2}"},
		{"jsonb", `'[1.5, "NaN", null]'`, "numeric(5,1)[]", "{1.5,NaN,NULL}"},
		{"words", "'(x,1.0)'", "pair", "(x,1.0)"},
		{"words[]", `'{"(x,1)"}'`, "pair[]", `{"(x,1.0)"}`},
		{"jsonb", `'{"a": 1, "b": 2}'`, "pair", "(1,2.0)"},
		{"jsonb", `'{"b": 2}'`, "pair", "(,2.0)"},
		{"jsonb", `'{"a": true, "b": 2}'`, "pair", "(true,2.0)"},
		{"jsonb", `'{"b": 2, "yes": "t"}'`, "mixed", "(2.0,t,,)"},
		{"text", "'1.0'", "numeric(5,2)", "1.00"},
	} {
		d.restore(restore.Options{Path: restoreAs(c.from, c.value, c.to)})
		if got := d.Query("SELECT v FROM t WHERE id = 2"); got != c.want {
			t.Errorf("%s of %s became %s of %s", c.value, c.from, got, c.to)
		}
	}
	for _, c := range []struct{ from, value, to string }{
		{"jsonb", "'[1, 1.239]'", "numeric(5,1)[]"},
		{"jsonb", "'[[1], [1.239]]'", "numeric(5,1)[]"},
		{"jsonb", `'[null, "NaN", 1.239]'`, "numeric(5,1)[]"},
		{"jsonb", `'{"a": "x", "b": 1.239}'`, "pair"},
		{"jsonb", `'[{"b": 1.239}]'`, "pair[]"},
		{"jsonb", `'{"b": 1.239, "yes": true, "at": "2026-01-01T00:00:00", "j": {"x": [1, "y"]}}'`, "mixed"},
		{"bigint[]", "'{9007199254740993}'", "float8[]"},
		{"bigint", "9007199254740993", "float8"},
	} {
		d.wantRefused(restore.Options{Path: restoreAs(c.from, c.value, c.to)}, "line 3 (id 2)", `column "v"`, "would change")
	}
}

// TestTypesThatShorten checks that a restore refuses values that a type would shorten without an error. varchar(n) cuts off
// spaces at the end, and the type "name" cuts off everything beyond 63 bytes.
func TestTypesThatShorten(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec("CREATE DOMAIN code AS varchar(9); CREATE TABLE t (id int PRIMARY KEY, a text, b text, c code, n int); INSERT INTO t VALUES (1, 'ok', 'ok', 'ok', 1200), (2, 'ok   ', repeat('x', 99), 'ok   ', 1234)")
	path := d.Export("t")
	for column, change := range map[string]string{
		"a": "ALTER TABLE t ALTER a TYPE varchar(3)", "b": "ALTER TABLE t ALTER b TYPE name",
		"c": "DROP TABLE t; DROP DOMAIN code; CREATE DOMAIN code AS varchar(3); CREATE TABLE t (id int PRIMARY KEY, a text, b text, c code, n int)",
	} {
		d.Exec("TRUNCATE t; " + change)
		d.wantRefused(restore.Options{Path: path}, "line 3 (id 2)", `column "`+column+`"`, "would change")
		d.Exec("DROP TABLE t; DROP DOMAIN code; CREATE DOMAIN code AS varchar(9); CREATE TABLE t (id int PRIMARY KEY, a text, b text, c code, n int)")
	}
	if d.version() >= 15 {
		d.Exec("ALTER TABLE t ALTER n TYPE numeric(5, -2)")
		d.wantRefused(restore.Options{Path: path}, "line 3 (id 2)", `column "n"`, "would change")
	}
	d.Exec("ALTER TABLE t ALTER a TYPE varchar(20), ALTER b TYPE varchar(99), ALTER c TYPE varchar(5), ALTER n TYPE numeric(9,2)")
	d.restore(restore.Options{Path: path})
	if got := d.Query("SELECT a, length(b), c FROM t WHERE id = 2"); got != "ok   |99|ok   " {
		t.Errorf("the row is %s", got)
	}
}
