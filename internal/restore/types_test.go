package restore_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"capture/internal/restore"
	"capture/internal/verify"
)

type roundTripType struct {
	typ    string
	since  int // first major version of Postgres with the type or value
	values []string
	alone  bool // whether to leave out arrays, domains and composites of the type, because their JSON is ambiguous or they test nothing new
}

// roundTripTypes has types with values that an inexact conversion would change.
var roundTripTypes = []roundTripType{
	{typ: "boolean", values: []string{"true", "false"}},
	{typ: "smallint", values: []string{"-32768", "32767"}},
	{typ: "bigint", values: []string{"'-9223372036854775808'", "9007199254740993"}},
	{typ: "real", values: []string{"'-0'", "'NaN'", "'-Infinity'", "1e-45", "3.4028235e38", "0.1"}},
	{typ: "double precision", values: []string{"'-0'", "'NaN'", "'Infinity'", "'1e-320'", "1.7976931348623157e308", "0.1"}},
	{typ: "numeric", values: []string{"0.00", "-1.50", "'NaN'", "repeat('9', 1000)::numeric", "('0.' || repeat('0', 999) || '1')::numeric"}},
	{typ: "numeric", since: 14, values: []string{"'Infinity'", "'-Infinity'"}},
	{typ: "numeric(10,2)", values: []string{"1.5", "-12345678.90"}},
	{typ: "money", values: []string{"'1234567.89'", "'-0.01'"}},
	{typ: "text", values: []string{`''`, `' '`, `'NULL'`, `'null'`, `'\N'`, `'\\N'`, `'\.'`, `'a,b'`, `'{}'`, `'"'`, `'\'`, `E'\n'`, `E'a\r\nb\tc'`, `E'\b\f\x01\x1f\x7f'`, `E'\u2028'`, `'𝄞 🗳️'`, `'\u0041'`, `'/</script>&'`, `repeat(E'"\\\n', 50)`, `E'\t'`, `'2025-01-01T00:00:00+00:00'`}},
	{typ: "varchar(20)", values: []string{"''", "'a '"}},
	{typ: "char(5)", values: []string{"''", "'a b'"}},
	{typ: `"char"`, values: []string{`'a'`, `'"'`, `'\'`, `E'\n'`}},
	{typ: "name", values: []string{"'a b'", "repeat('n', 63)"}},
	{typ: "bytea", values: []string{`''`, `'\x00ff0a5c'`}},
	{typ: "date", values: []string{"'2025-06-17'", "'0044-03-15 BC'", "'infinity'", "'-infinity'", "'5874897-12-31'"}},
	{typ: "time", values: []string{"'24:00:00'", "'12:34:56.789012'"}},
	{typ: "timetz", values: []string{"'24:00:00-15:59:59'", "'12:34:56.7+05:30'"}},
	{typ: "timestamp", values: []string{"'2025-06-17 16:58:00'", "'2025-06-17 16:58:00.1'", "'0044-03-15 12:00 BC'", "'infinity'", "'294276-12-31 23:59:59.999999'"}},
	{typ: "timestamptz", values: []string{"'2025-06-17 16:58:00+05:30'", "'0044-03-15 12:00+01:23:45 BC'", "'-infinity'", "'294276-12-31 23:59:59.999999'"}},
	{typ: "interval", values: []string{"'0'", "'1 year 2 mons -3 days 04:05:06.7'", "'-1 day'"}},
	{typ: "uuid", values: []string{"'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"}},
	{typ: "inet", values: []string{"'127.0.0.1'", "'10.0.0.0/8'", "'fe80::1/64'"}},
	{typ: "macaddr", values: []string{"'08-00-2b-01-02-03'"}},
	{typ: "bit(3)", values: []string{"B'101'"}},
	{typ: "varbit", values: []string{"B''", "B'10101'"}},
	{typ: "xml", values: []string{`'<a b="c">x &lt; y</a>'`}},
	{typ: "json", alone: true, values: []string{`'{}'`, `'[ 1 , 2 ]'`, `E'{"a" :\n1,\r\n\t"a": "x\\ny \\u2028 \\u0000 \\/ \\ud800", "b":[ ]}'`, `'1e400'`, `'12345678901234567890.123450'`, `'"a\"b,c}"'`, `'"\u0041\u0000"'`, `'-0.0'`}},
	{typ: "jsonb", alone: true, values: []string{`'{}'`, `'[1,2,{"a":null,"b":[true,"x\"y"]}]'`, `'1e3'`, `'"\u00e9\n"'`, `'12345678901234567890.123450'`, `'"{}"'`}},
	{typ: "tsvector", values: []string{`''`, `'a fat cat''s:1A,2 "x\y"'`}},
	{typ: "tsquery", values: []string{`'a & !b | ''c d'''`}},
	{typ: "pg_lsn", values: []string{"'16/B374D848'"}},
	{typ: "oid", values: []string{"0", "4294967295"}},
	{typ: "regclass", values: []string{"'pg_class'", "0::oid::regclass"}},
	{typ: "int2vector", alone: true, values: []string{"''", "'1 -2 3'"}},
	{typ: "oidvector", alone: true, values: []string{"'1 4294967295'"}},
	{typ: "int2vector[]", alone: true, values: []string{`'{"1 -2 3",NULL,""}'`, `'{}'`}},
	{typ: "point", values: []string{"'(1,-0)'", "'(NaN,Infinity)'"}},
	{typ: "box", values: []string{"'(1,1),(0,0)'"}},
	{typ: "polygon", values: []string{"'((0,0),(1,1),(2,0))'"}},
	{typ: "int4range", values: []string{"'[1,5)'", "'empty'", "'(,)'"}},
	{typ: "tstzrange", values: []string{"'[2025-01-01 00:00+02,infinity]'"}},
	{typ: "int4multirange", since: 14, values: []string{"'{}'", "'{[1,2),[5,)}'"}},
	{typ: "mood", values: []string{`'sad'`, `'so "so"'`, `'NULL'`, `''`, `'a,b'`}},
	{typ: "posint", values: []string{"1"}},
	{typ: "words", alone: true, values: []string{`'{}'`, `'{a,"b c",NULL}'`}},
	{typ: "words[]", alone: true, values: []string{`ARRAY['{a,"b \"c\""}'::words, NULL, '{}']`}},
	{typ: "pair", values: []string{`ROW(1, 'a "b" \ c,)(')`, `ROW(NULL, NULL)`, `ROW(1, '')`}},
	{typ: "nothing", alone: true, values: []string{"ROW()"}},
	{typ: "deep", alone: true, values: []string{`ROW(ARRAY[[1,2],[3,NULL]], ROW(1,'x"y'), ARRAY[ROW(2,'{a}'), NULL]::pair[], '{"k": [1, "v"]}', '2025-01-01 00:00', ARRAY['t','f']::bool[], '1 2', '{(1,1),(0,0);(2,2),(1,1)}', ARRAY['2025-01-01 00:00']::timestamptz[])`, `ROW(NULL, NULL, '{}', NULL, NULL, NULL, '', NULL, NULL)`}},
	{typ: "integer[]", alone: true, values: []string{"'{}'", "'{1,NULL,-3}'", "'{{1,2},{3,4}}'", "'{{{{{{1}}}}}}'"}},
	{typ: "text[]", alone: true, values: []string{`'{NULL,"NULL",null,"","a\"b","c\\d","{}",","," x "}'`, `ARRAY[[E'\n','"'],['\','x']]`}},
	{typ: "box[]", alone: true, values: []string{"'{(1,1),(0,0);(3,3),(2,2)}'", "'{NULL;(1,1),(0,0)}'"}},
	{typ: "json[]", alone: true, values: []string{`ARRAY['{"a": "b"}', E'[1,\n2]', NULL, '"x"']::json[]`, `ARRAY['[1]', '[2, 3]']::json[]`}},
	{typ: "hstore", values: []string{`'a=>1, "b c"=>NULL, "q"=>"x\"y\\z"'`, `''`}},
	{typ: "citext", values: []string{`'A "b"'`, `''`}},
	{typ: "ltree", values: []string{`'a.b.c'`, `''`}},
}

func TestRoundTripOfEveryType(t *testing.T) {
	if testing.Short() {
		t.Skip("restores every type")
	}
	t.Parallel()
	d := newDB(t)
	version := d.version()
	d.Exec(`CREATE TYPE mood AS ENUM ('sad', 'so "so"', 'NULL', '', 'a,b'); CREATE DOMAIN posint AS int CHECK (VALUE > 0);
		CREATE DOMAIN words AS text[]; CREATE TYPE pair AS (n int, "the ""text"", \" text); CREATE TYPE nothing AS ();
		CREATE TYPE deep AS (ints int[], p pair, ps pair[], j json, t timestamp, b bool[], v int2vector, boxes box[], ts timestamptz[])`)
	extensions := d.Query("SELECT ',' || string_agg(name, ',') || ',' FROM pg_available_extensions WHERE name IN ('hstore', 'citext', 'ltree')")
	for _, name := range strings.FieldsFunc(extensions, func(r rune) bool { return r == ',' }) {
		d.Exec("CREATE EXTENSION " + name)
	}
	types := slices.DeleteFunc(slices.Clone(roundTripTypes), func(c roundTripType) bool {
		isExtension := c.typ == "hstore" || c.typ == "citext" || c.typ == "ltree"
		if version >= c.since && (!isExtension || strings.Contains(extensions, ","+c.typ+",")) {
			return false
		}
		t.Logf("PostgreSQL %d here has no %s", version, c.typ)
		return true
	})
	// A restore spends most of its time on queries of the catalog. Each table has columns of up to ten types, so that there
	// are fewer restores.
	i := 0
	for some := range slices.Chunk(types, 10) {
		table := fmt.Sprintf("t%d", i)
		columns := fmt.Sprintf(`id serial PRIMARY KEY, "odd ""name"" \ %d" int DEFAULT 1, made int GENERATED ALWAYS AS (id + 1) STORED`, i)
		var inserts []string
		for _, c := range some {
			i++
			names, row := fmt.Sprintf("v%d", i), "x"
			columns += fmt.Sprintf(", v%d %s", i, c.typ)
			if !c.alone {
				d.Exec(fmt.Sprintf("CREATE DOMAIN dom%d AS %s; CREATE TYPE comp%[1]d AS (f %[2]s, g %[2]s[], h text)", i, c.typ))
				names += fmt.Sprintf(", a%d, d%[1]d, ad%[1]d, c%[1]d, ca%[1]d", i)
				columns += fmt.Sprintf(", a%d %s[], d%[1]d dom%[1]d, ad%[1]d dom%[1]d[], c%[1]d comp%[1]d, ca%[1]d comp%[1]d[]", i, c.typ)
				row += fmt.Sprintf(", ARRAY[[x, NULL], [x, x]], x::dom%d, ARRAY[x::dom%[1]d, NULL], ROW(x, ARRAY[x, NULL], E'\\r\"')::comp%[1]d, ARRAY[ROW(x, NULL, '')::comp%[1]d, NULL]", i)
			}
			for _, value := range c.values {
				inserts = append(inserts, fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM (SELECT (%s)::%s AS x) _", table, names, row, value, c.typ))
			}
		}
		d.Exec("CREATE TABLE " + table + " (" + columns + "); " + strings.Join(inserts, "; ") + "; INSERT INTO " + table + " DEFAULT VALUES")
		roundTrip(t, d, table)
	}
}

func roundTrip(t *testing.T, d *db, table string) {
	t.Helper()
	path := d.Export(table)
	// A row is one line in the file, so a newline between the tokens of a json value becomes a space.
	rows := "SELECT translate(row_to_json(t)::text, E'\\n\\r', '  ') FROM " + table + " t ORDER BY id"
	want := strings.Split(d.Query(rows), "\n")
	for _, o := range []restore.Options{{}, {OnConflict: restore.Skip}} {
		d.Exec("TRUNCATE " + table)
		if o.OnConflict == restore.Skip {
			d.Exec("INSERT INTO " + table + " (id) VALUES (-1)") // the row makes the restore use the temporary table
		}
		o.Path = path
		d.restore(o)
		d.Exec("DELETE FROM " + table + " WHERE id = -1")
		got := strings.Split(d.Query(rows), "\n")
		if len(got) != len(want) {
			t.Fatalf("%s has %d rows, not %d", table, len(got), len(want))
		}
		for i := range want {
			if got[i] != want[i] {
				t.Errorf("%s:\ngot  %s\nwant %s", table, got[i], want[i])
			}
		}
	}
	if r := d.verify(verify.Options{Path: path, Database: d.Config}); !r.OK {
		t.Errorf("%s: %+v %+v", table, r, r.Difference)
	}
}
