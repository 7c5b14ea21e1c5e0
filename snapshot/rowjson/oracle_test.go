package rowjson

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/pgserver"
)

// oracle is a database session. The tests compare the lines of an Encoder with the result of row_to_json in this session.
type oracle struct {
	testing.TB
	conn    *pgconn.PgConn
	version int // major version of the server
}

// newOracle connects to a new database and pins the settings that the Encoder relies on. options are added to CREATE
// DATABASE.
func newOracle(tb testing.TB, options ...string) *oracle {
	tb.Helper()
	ctx := context.Background()
	cfg, err := pgconn.ParseConfig(pgserver.Database(tb, options...))
	if err != nil {
		tb.Fatal(err)
	}
	conn, err := pgconn.ConnectConfig(ctx, cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close(ctx) })
	o := &oracle{TB: tb, conn: conn}
	o.exec(`SET client_encoding = 'UTF8'; SET DateStyle = 'ISO, MDY'; SET IntervalStyle = 'postgres'; SET TimeZone = 'UTC';
		SET bytea_output = 'hex'; SET extra_float_digits = 1; SET client_min_messages = warning`)
	fmt.Sscan(conn.ParameterStatus("server_version"), &o.version)
	return o
}

func (o *oracle) exec(sql string) {
	o.Helper()
	if _, err := o.conn.Exec(context.Background(), sql).ReadAll(); err != nil {
		o.Fatalf("%v in\n%.2000s", err, sql)
	}
}

// queryText returns the rows of a query's result. Their values are in text form, because the simple protocol sends what the
// types' output functions print.
func (o *oracle) queryText(sql string) [][][]byte {
	o.Helper()
	results, err := o.conn.Exec(context.Background(), sql).ReadAll()
	if err != nil {
		o.Fatalf("%v in\n%.2000s", err, sql)
	}
	return results[len(results)-1].Rows
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }

// shape reads a table's shape. The key is the first column.
func (o *oracle) shape(table string) *Shape {
	o.Helper()
	s := &Shape{Table: table, Key: []int{0}}
	for _, c := range o.queryText(`SELECT attname, format_type(atttypid, atttypmod), atttypid::oid FROM pg_attribute
		WHERE attrelid = ` + quote(table) + `::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum`) {
		s.Columns = append(s.Columns, Column{Name: string(c[0]), TypeName: string(c[1]), Type: o.typ(string(c[2]))})
	}
	return s
}

// typ reads a type from the catalog as json_categorize_type does.
func (o *oracle) typ(oid string) Type {
	o.Helper()
	row := o.queryText(`SELECT typtype, typbasetype::oid, typelem::oid, typdelim, typrelid::oid, typlen, typarray::oid, typinput::oid::regproc,
		oid >= 16384 AND EXISTS (SELECT FROM pg_cast WHERE castsource = t.oid AND casttarget = 'json'::regtype AND castmethod = 'f')
		FROM pg_type t WHERE oid = ` + oid)[0]
	t := Type{Delim: row[3][0]}
	fmt.Sscan(oid, &t.OID)
	kinds := map[uint32]Kind{16: Bool, 20: Number, 21: Number, 23: Number, 700: Number, 701: Number, 1700: Number,
		114: JSON, 3802: JSON, 1114: Timestamp, 1184: TimestampTZ}
	elem := func(delim byte) {
		e := o.typ(string(row[2]))
		t.Elem, t.Delim = &e, delim
	}
	switch {
	case row[0][0] == 'd':
		return o.typ(string(row[1]))
	case kinds[t.OID] != 0:
		t.Kind = kinds[t.OID]
	case string(row[7]) == "int2vectorin" || string(row[7]) == "oidvectorin":
		t.Kind = Vector
		elem(' ')
	case string(row[7]) == "array_in":
		t.Kind = Array
		elem(t.Delim)
	case row[0][0] == 'c':
		t.Kind = Composite
		for _, f := range o.queryText(`SELECT attname, atttypid::oid FROM pg_attribute WHERE attrelid = ` + string(row[4]) +
			` AND attnum > 0 AND NOT attisdropped ORDER BY attnum`) {
			t.Fields = append(t.Fields, Field{Name: string(f[0]), Type: o.typ(string(f[1]))})
		}
	case row[8][0] == 't':
		t.Kind = Cast
	}
	return t
}

// check encodes each row of a table in three ways: with AppendRow, with AppendCopiedRow, and as an update that changes
// nothing. It compares the lines with row_to_json.
func (o *oracle) check(table string, lossy bool) {
	o.Helper()
	s := o.shape(table)
	e := newEncoder(o, s, lossy)
	e.Server = func(column int, text []byte) ([]byte, error) {
		return o.queryText("SELECT to_json(" + quote(string(text)) + "::" + s.Columns[column].TypeName + ")")[0][0], nil
	}
	rows := o.queryText("SELECT * FROM " + table + " ORDER BY 1")
	want := o.queryText("SELECT row_to_json(t) FROM " + table + " t ORDER BY t." + pgx.Identifier{s.Columns[0].Name}.Sanitize())
	var list []string
	for i := range s.Columns {
		name := pgx.Identifier{s.Columns[i].Name}.Sanitize()
		if s.Columns[i].Type.NeedsServer() {
			name = "to_json(" + name + ")"
		}
		list = append(list, name)
	}
	copied := o.queryText("SELECT " + strings.Join(list, ", ") + " FROM " + table + " t ORDER BY t." + pgx.Identifier{s.Columns[0].Name}.Sanitize())
	if len(rows) == 0 {
		o.Errorf("%s has no rows", table)
	}
	for r := range rows {
		line, err := e.AppendRow(nil, rows[r], nil)
		if err != nil {
			o.Errorf("row %s: %v", rows[r][0], err)
			continue
		}
		oracle := want[r][0]
		if !utf8.Valid(oracle) { // happens with SQL_ASCII, and with "char" before PostgreSQL 16
			oracle = replaceInvalid(oracle)
		}
		if a, b := withoutSpace(line), withoutSpace(oracle); !bytes.Equal(a, b) {
			o.Errorf("row %s:\ngot  %s\nwant %s", rows[r][0], a, b)
		}
		if !json.Valid(line) || bytes.ContainsAny(line, "\n\r") {
			o.Errorf("row %s is no line of JSON: %q", rows[r][0], line)
		}
		if again, err := e.AppendCopiedRow(nil, copied[r]); err != nil || !bytes.Equal(again, line) {
			o.Errorf("row %s of the copy: %v\ngot  %s\nwant %s", rows[r][0], err, again, line)
		}
		kept := [][]byte{rows[r][0]}
		for range s.Columns[1:] {
			kept = append(kept, Unchanged)
		}
		if again, err := e.AppendRow(nil, kept, line); err != nil || !bytes.Equal(again, line) {
			o.Errorf("row %s with unchanged values: %v\ngot  %s\nwant %s", rows[r][0], err, again, line)
		}
	}
}

// withoutSpace removes white space outside of strings from JSON.
func withoutSpace(text []byte) []byte {
	var out []byte
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case ' ', '\n', '\r', '\t':
		case '"':
			n := 1
			for ; text[i+n] != '"'; n++ {
				if text[i+n] == '\\' {
					n++
				}
			}
			out = append(out, text[i:i+n+1]...)
			i += n
		default:
			out = append(out, text[i])
		}
	}
	return out
}

// oracleType is a type with SQL expressions for some values.
type oracleType struct {
	typ    string
	since  int // first major version of Postgres with the type
	needs  string
	values []string
}

// oracleTypes reads testdata/types.tsv. The file names types that testdata/types.sql creates.
func oracleTypes(t *testing.T) (types []oracleType) {
	t.Helper()
	b, err := os.ReadFile("testdata/types.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 4)
		c := oracleType{typ: f[0], needs: f[2], values: f[3:]}
		fmt.Sscan(f[1], &c.since)
		if last := len(types) - 1; last >= 0 && types[last].typ == c.typ && types[last].since == c.since {
			types[last].values = append(types[last].values, c.values...)
			continue
		}
		types = append(types, c)
	}
	return types
}

func TestOracleTypes(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	ddl, err := os.ReadFile("testdata/types.sql")
	if err != nil {
		t.Fatal(err)
	}
	o.exec(string(ddl))
	available := map[string]bool{}
	for _, row := range o.queryText(`SELECT name FROM pg_available_extensions WHERE name IN ('hstore', 'citext', 'ltree', 'cube', 'isn', 'seg')`) {
		available[string(row[0])] = true
		o.exec("CREATE EXTENSION " + string(row[0]))
	}
	for i, c := range oracleTypes(t) {
		if o.version < c.since || c.needs != "" && !available[c.needs] {
			t.Logf("PostgreSQL %d here has no %s %s", o.version, c.typ, c.needs)
			continue
		}
		t.Run(c.typ, func(t *testing.T) {
			o := &oracle{TB: t, conn: o.conn, version: o.version}
			o.exec(everyFormOf(i, c.typ, c.values))
			o.check(fmt.Sprintf("t%d", i), false)
		})
	}
}

// everyFormOf returns SQL for a table with the given type, with arrays, domains and composites of the type, and with
// combinations of these.
func everyFormOf(i int, typ string, values []string) string {
	var b strings.Builder
	columns := []string{"id int PRIMARY KEY", "v " + typ, "c comp", "cs comp[]", "dc dcomp", "outr outr"}
	rows := []string{"n, x", "ROW(x, NULL, 'q')::comp", "ARRAY[ROW(x, NULL, NULL)::comp, NULL]", "ROW(x, NULL, 'r')::comp", "ROW(ARRAY[ROW(x, NULL, '')::comp], 1)::outr"}
	fmt.Fprintf(&b, "CREATE SCHEMA s%d; SET search_path = s%[1]d, public; CREATE TYPE comp AS (f %s, \"many \\ \n\" %[2]s[], h text);\n", i, typ)
	b.WriteString("CREATE DOMAIN dcomp AS comp; CREATE TYPE outr AS (cs comp[], n int);\n")
	delim := ","
	if typ == "box" {
		delim = ";"
	}
	if !strings.HasSuffix(typ, "[]") && typ != "words" {
		fmt.Fprintf(&b, "CREATE DOMAIN dom AS %s; CREATE DOMAIN doms AS %[1]s[];\n", typ)
		columns = append(columns, "a "+typ+"[]", "a2 "+typ+"[]", "d dom", "ds doms", "ad dom[]", "ads doms[]", "ca comp")
		rows = append(rows, "ARRAY[x, NULL]", "array_fill(x, ARRAY[1,2], ARRAY[3,0])", "x::dom", "ARRAY[NULL, x]::doms", "ARRAY[x::dom, NULL]",
			fmt.Sprintf(`('{"' || replace(replace(ARRAY[x]::text, '\', '\\'), '"', '\"') || '"%[1]sNULL%[1]s"{}"}')::doms[]`, delim), "ROW(NULL, ARRAY[x, NULL, x], E'\\r\\n')::comp")
	}
	fmt.Fprintf(&b, "CREATE TABLE t%d (%s);\n", i, strings.Join(columns, ", "))
	for n, value := range values {
		fmt.Fprintf(&b, "INSERT INTO t%d SELECT %s FROM (SELECT %d AS n, (%s)::%s AS x) AS _;\n", i, strings.Join(rows, ", "), n, value, typ)
	}
	fmt.Fprintf(&b, "INSERT INTO t%d (id) VALUES (1000);\n", i)
	return b.String()
}

func TestOracleShapes(t *testing.T) {
	t.Parallel()
	o := newOracle(t)
	long := strings.Repeat("é", 31) + "x" // 63 bytes
	o.exec(`CREATE TABLE odd (id int PRIMARY KEY, "a ""quoted"" \ name" int, "with
newline	tab" text, "` + long + `" text, gone int, "Ünï/<>" text, "select" int GENERATED ALWAYS AS (id * 2) STORED);
		ALTER TABLE odd DROP COLUMN gone;
		INSERT INTO odd VALUES (1, 2, 'x', 'y', 'z');
		ALTER TABLE odd ADD COLUMN late text DEFAULT 'later';
		INSERT INTO odd VALUES (2, NULL, NULL, NULL, NULL);`)
	if o.version >= 18 {
		o.exec(`ALTER TABLE odd ADD COLUMN virt text GENERATED ALWAYS AS (id::text || '"') VIRTUAL`)
	}
	o.check("odd", false)
}

func TestOracleEncodings(t *testing.T) {
	t.Parallel()
	latin := newOracle(t, "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
	latin.exec(`CREATE TABLE t (id int PRIMARY KEY, v text, "ü" text[]); INSERT INTO t VALUES (1, 'é\ü', ARRAY['ö "'])`)
	latin.check("t", false)

	ascii := newOracle(t, "TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'")
	ascii.exec(`SET client_encoding = 'SQL_ASCII'; CREATE TYPE c AS (a text, b json);
		CREATE TABLE t (id int PRIMARY KEY, v text, a text[], c c, cs c[]);
		INSERT INTO t SELECT 1, x, ARRAY[x, 'é'], ROW(x, '{}')::c, ARRAY[ROW(x, to_json(x))]::c[] FROM (SELECT E'a\xe9"\xff\\\xc3' AS x) _`)
	ascii.check("t", true)
	e := newEncoder(t, ascii.shape("t"), true)
	for _, row := range ascii.queryText("SELECT * FROM t") {
		if _, err := e.AppendRow(nil, row, nil); err != nil || !e.Replaced() {
			t.Errorf("Replaced() = %v, %v", e.Replaced(), err)
		}
	}
}
