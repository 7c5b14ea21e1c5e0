package capture

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"capture/internal/busy"
	"capture/internal/filetest"
	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// exactType is a type of snapshot/rowjson/testdata/types.tsv, with the SQL expressions for its values.
type exactType struct {
	name      string
	extension string // extension that has the type, if any
	values    []string
}

const (
	typesPerTable = 9    // number of types per table, small enough that a row fits into a Postgres page, apart from its long values
	shifted       = 1000 // difference between the keys of a row and of its copy
)

// exactTypes returns the types that this server has.
func exactTypes(t *testing.T, conn *pgx.Conn) (types []exactType) {
	t.Helper()
	b, err := os.ReadFile("../snapshot/rowjson/testdata/types.tsv")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSuffix(line, "\n"), "\t", 4)
		since, err := strconv.Atoi(f[1])
		switch {
		case err != nil, since > major(conn), f[2] != "" && !available(t, conn, f[2]): // err is set for the heading, which has no version
			continue
		case len(types) > 0 && types[len(types)-1].name == f[0]:
			last := &types[len(types)-1]
			last.values = append(last.values, f[3])
		default:
			types = append(types, exactType{f[0], f[2], f[3:]})
		}
	}
	return types
}

// major returns the server's major version.
func major(conn *pgx.Conn) (n int) {
	_, _ = fmt.Sscan(conn.PgConn().ParameterStatus("server_version"), &n)
	return n
}

func available(t *testing.T, conn *pgx.Conn, extension string) (yes bool) {
	t.Helper()
	if err := conn.QueryRow(t.Context(), "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = $1)", extension).Scan(&yes); err != nil {
		t.Fatal(err)
	}
	return yes
}

// exactTable creates table t with columns of each type, columns of types derived from it (arrays, domains, composites) and
// generated columns. The rows contain each value of the types. exactTable returns the names of the columns, without the
// generated ones.
func exactTable(t *testing.T, conn *pgx.Conn, types []exactType) (columns []string) {
	t.Helper()
	// exactTable uses few transactions, because each transaction that changes the catalog costs time in every server process
	// that decodes changes.
	var setup strings.Builder
	var ddl, values, exprs []string
	rows := 0
	for i, typ := range types {
		rows = max(rows, len(typ.values))
		fmt.Fprintf(&setup, `CREATE TYPE comp%d AS (f %s, "many \ "", ü" %[2]s[], h text); CREATE DOMAIN dcomp%[1]d AS comp%[1]d; `, i, typ.name)
		v := fmt.Sprintf("v%d", i)
		add := func(name, typ, expr string) {
			columns = append(columns, name)
			ddl = append(ddl, name+" "+typ)
			exprs = append(exprs, strings.ReplaceAll(expr, "$v", v))
		}
		var b strings.Builder
		for n, value := range typ.values {
			fmt.Fprintf(&b, " WHEN %d THEN (%s)::%s", n, value, typ.name)
		}
		values = append(values, fmt.Sprintf("CASE n %% %d%s END AS %s", len(typ.values), b.String(), v))
		add(v, typ.name, "$v")
		add(fmt.Sprintf("c%d", i), fmt.Sprintf("comp%d", i), "ROW($v, NULL, E'a\n\"\\\\')::comp"+strconv.Itoa(i))
		add(fmt.Sprintf("cs%d", i), fmt.Sprintf("comp%d[]", i), fmt.Sprintf("ARRAY[ROW($v, '{}', NULL)::comp%d, NULL]", i))
		add(fmt.Sprintf("dc%d", i), fmt.Sprintf("dcomp%d", i), fmt.Sprintf("ROW($v, NULL, 'r')::comp%d", i))
		// To compute a generated column after an update, capture derives unchanged values from the row's JSON. If the JSON of a
		// type does not determine the value, capture resyncs instead, so such types get no generated column. The type "char"
		// gets none either, because servers before version 16 send bytes of "char" that they do not accept as input.
		if !slices.Contains([]string{`"char"`, "hstore", "shade", "words[]", "json[]", "deep"}, typ.name) {
			ddl = append(ddl, fmt.Sprintf("gv%d %s GENERATED ALWAYS AS (%s) STORED", i, typ.name, v))
		}
		plain := !slices.Contains([]string{`"char"`, "hstore", "shade", "words", "deep", "json", "jsonb", "jsondoc", "int2vector", "oidvector"}, typ.name) && !strings.HasSuffix(typ.name, "[]")
		if plain {
			ddl = append(ddl, fmt.Sprintf("gc%d comp%[1]d GENERATED ALWAYS AS (c%[1]d) STORED", i))
			ddl = append(ddl, fmt.Sprintf("gcs%d comp%[1]d[] GENERATED ALWAYS AS (cs%[1]d) STORED", i))
		}
		if strings.HasSuffix(typ.name, "[]") || typ.name == "words" {
			continue // typ is an array type, or the type words, whose array type words[] is in types.tsv
		}
		fmt.Fprintf(&setup, "CREATE DOMAIN dom%d AS %s; CREATE DOMAIN doms%[1]d AS %[2]s[]; ", i, typ.name)
		add(fmt.Sprintf("a%d", i), typ.name+"[]", "array_fill($v, ARRAY[1,2], ARRAY[3,0])")
		add(fmt.Sprintf("d%d", i), fmt.Sprintf("dom%d", i), "$v")
		add(fmt.Sprintf("ds%d", i), fmt.Sprintf("doms%d", i), "ARRAY[NULL, $v]")
		add(fmt.Sprintf("ad%d", i), fmt.Sprintf("dom%d[]", i), fmt.Sprintf("ARRAY[$v::dom%d, NULL]", i))
		if plain {
			ddl = append(ddl, fmt.Sprintf("gd%d dom%[1]d GENERATED ALWAYS AS (d%[1]d) STORED", i))
			ddl = append(ddl, fmt.Sprintf("gds%d doms%[1]d GENERATED ALWAYS AS (ds%[1]d) STORED", i))
		}
		if major(conn) >= 18 && plain && !ownType(typ.name) {
			ddl = append(ddl, fmt.Sprintf("virt%d %s GENERATED ALWAYS AS (%s) VIRTUAL", i, typ.name, v))
			ddl = append(ddl, fmt.Sprintf("virta%d %s[] GENERATED ALWAYS AS (a%[1]d) VIRTUAL", i, typ.name))
		}
	}
	fmt.Fprintf(&setup, "CREATE TABLE t (id int PRIMARY KEY, n int, pad text, %s) WITH (toast_tuple_target = 128)", strings.Join(ddl, ", "))
	exec(t, conn, setup.String(), pgx.QueryExecModeSimpleProtocol)
	// Values are stored out of line if possible, so that the stream omits values that an update does not change.
	exec(t, conn, queryOne[string](t, conn, `SELECT 'ALTER TABLE t ' || string_agg(format('ALTER %I SET STORAGE EXTERNAL', attname), ', ')
		FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = ANY ($1) AND attstorage <> 'p'`, append([]string{"pad"}, columns...)))
	exec(t, conn, fmt.Sprintf("INSERT INTO t (id, n, pad, %s) SELECT n, 0, repeat('p', 3000), %s FROM (SELECT n, %s FROM generate_series(1, %d) n) AS _",
		strings.Join(columns, ", "), strings.Join(exprs, ", "), strings.Join(values, ", "), rows))
	exec(t, conn, "INSERT INTO t (id) VALUES (0)")
	return columns
}

// exactDatabase creates a database with the table of exactTable. It returns the database's URL, a connection, and the columns.
func exactDatabase(t *testing.T, types []exactType) (url string, conn *pgx.Conn, columns []string) {
	t.Helper()
	url = pgserver.Database(t)
	conn = connect(t, url)
	for _, typ := range types {
		if typ.extension != "" {
			exec(t, conn, "CREATE EXTENSION "+typ.extension)
		}
	}
	ddl, err := os.ReadFile("../snapshot/rowjson/testdata/types.sql")
	if err != nil {
		t.Fatal(err)
	}
	exec(t, conn, string(ddl), pgx.QueryExecModeSimpleProtocol)
	return url, conn, exactTable(t, conn, types)
}

// ownType reports whether a type is user-defined. A virtual column must not have such a type.
func ownType(name string) bool {
	return slices.Contains([]string{"textrange", "mood", "posint", "smallposint", "stamp", "jsondoc", "words", "words[]", "pair", "pair[]", "pairs", "one",
		"nothing", "shrunk", "deep", "hstore", "citext", "ltree", "cube", "isbn", "seg", "shade"}, name)
}

// TestExact takes each type, and the types derived from it, through a copy, the stream, a resync and an export. Each value must
// equal that of row_to_json.
func TestExact(t *testing.T) {
	if testing.Short() {
		t.Skip("compares values of every type")
	}
	types := exactTypes(t, connect(t, pgserver.Database(t)))
	for part := range slices.Chunk(types, typesPerTable) {
		t.Run(part[0].name, func(t *testing.T) {
			t.Parallel()
			url, conn, columns := exactDatabase(t, part)
			p := proxied(t, pgserver.Shared(t))
			cfg := proxiedConfig(t, p, url)
			cfg.Table = postgres.Name{Table: "t"}
			cfg.pageBytes = 300
			cfg.timeouts.Check = patience // each check of this long definition takes much processor time, and forced flushes check it anyway
			d := start(t, cfg)
			d.ready()
			d.waitStreamed() // nothing has been streamed yet, so this waits only for the copy
			d.compareExactly(conn, "copied")

			list := strings.Join(columns, ", ")
			for _, step := range []struct{ what, sql string }{
				{"inserted", fmt.Sprintf("INSERT INTO t (id, n, pad, %s) SELECT id + %d, n, pad, %[1]s FROM t", list, shifted)},
				{"updated to other values", fmt.Sprintf("UPDATE t SET (%s) = (SELECT %[1]s FROM t AS o WHERE o.id = (t.id + 1) %% (SELECT max(id) + 1 FROM t WHERE id < %d)) WHERE id < %[2]d", list, shifted)},
				{"updated beside what stays", "UPDATE t SET n = coalesce(n, 0) + 1"},
				{"moved to another key", fmt.Sprintf("UPDATE t SET id = id + %d WHERE id < %d", 2*shifted, shifted)},
				{"set to NULL", fmt.Sprintf("UPDATE t SET pad = NULL, v0 = NULL, c0 = NULL WHERE id %% 3 = 0 AND id > %d", shifted)},
			} {
				d.waitStreamed(func() { exec(t, conn, step.sql) })
				d.compareExactly(conn, step.what)
			}
			if n := strings.Count(d.log.String(), `"@message":"copied"`); n != 1 {
				t.Errorf("the table was copied %d times; the stream should have been enough", n)
			}
			exec(t, conn, "ALTER TABLE t REPLICA IDENTITY FULL")
			if major(conn) >= 18 {
				exec(t, conn, "ALTER TABLE t REPLICA IDENTITY DEFAULT") // with FULL, updates of tables with virtual columns fail
			}
			d.flushAndCompareExactly(conn, "resync")
			exec(t, conn, "UPDATE t SET n = n + 1")
			exec(t, conn, "DELETE FROM t WHERE id % 2 = 0")
			d.flushAndCompareExactly(conn, "updated with the whole old row")

			// The update commits before the daemon connects again. Otherwise the stream might deliver it, and the resync would
			// transfer nothing.
			r := d.disconnected(p, func() { exec(t, conn, "UPDATE t SET n = n + 1 WHERE id % 3 <> 0") })
			if hasCast := slices.ContainsFunc(part, isCast); (r.Message == "resynced") == hasCast || !hasCast && r.Changed == 0 {
				t.Errorf("after a lost connection: %+v", r)
			}
			d.waitStreamed()
			d.compareExactly(conn, "resynced")

			v, err := Export(t.Context(), cfg, nil)
			if err != nil {
				t.Fatal(err)
			}
			var b strings.Builder
			if _, err := v.WriteTo(&b); err != nil {
				t.Fatal(err)
			}
			sameRows(t, "exported", b.String(), exactOracle(t, conn))
		})
	}
}

// isCast reports whether the JSON of the type's values depends on a cast to json or on the name of another object. Such JSON
// may change without a change of the row, so tables with such columns are always copied whole.
func isCast(typ exactType) bool {
	return strings.HasPrefix(typ.name, "reg") || slices.Contains([]string{"aclitem", "hstore", "shade"}, strings.TrimSuffix(typ.name, "[]"))
}

// TestExactNotified checks the values of the same types as TestExact, but with rows that the source notify reads after
// notifications.
func TestExactNotified(t *testing.T) {
	if testing.Short() {
		t.Skip("compares values of every type")
	}
	types := exactTypes(t, connect(t, pgserver.Database(t)))
	for part := range slices.Chunk(types, typesPerTable) {
		t.Run(part[0].name, func(t *testing.T) {
			t.Parallel()
			url, conn, columns := exactDatabase(t, part)
			cfg := config(t, url)
			cfg.Table, cfg.Source = postgres.Name{Table: "t"}, "notify"
			cfg.timeouts.Check = patience  // as in TestExact
			cfg.timeouts.Marker = patience // if a marker is late on a busy machine, capture must not read the whole table
			d := start(t, cfg)
			d.ready()
			for _, sql := range []string{
				fmt.Sprintf("INSERT INTO t (id, n, pad, %s) SELECT id + %d, n, pad, %[1]s FROM t", strings.Join(columns, ", "), shifted),
				fmt.Sprintf("UPDATE t SET n = 7, id = id + %d WHERE id < %d", 2*shifted, shifted),
			} {
				exec(t, conn, sql)
				d.flushAndCompareExactly(conn, "notified")
			}
			if n := strings.Count(d.log.String(), `"@message":"copied"`); n != 1 {
				t.Errorf("the table was copied %d times; the notifications should have been enough", n)
			}
		})
	}
}

// exactOracle returns what oracle returns, with U+FFFD for each byte that is not valid UTF-8. Before PostgreSQL 16, values of type
// "char" can have such bytes.
func exactOracle(t testing.TB, conn *pgx.Conn) []string {
	t.Helper()
	rows := oracle(t, conn, "t", "id")
	for i, row := range rows {
		if !utf8.ValidString(row) {
			rows[i] = string([]rune(row))
		}
	}
	return rows
}

// flushAndCompareExactly compares the file with the table after a forced flush, as compareExactly does.
func (d *daemon) flushAndCompareExactly(conn *pgx.Conn, what string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), busy.Limit(patience))
	defer cancel()
	eventually(d.t, what, func() error {
		_, err := d.Snapshot(ctx)
		return err
	})
	d.compareExactly(conn, what)
}

// compareExactly compares the file with the table, and reports differences column by column.
func (d *daemon) compareExactly(conn *pgx.Conn, what string) {
	d.t.Helper()
	b, err := os.ReadFile(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	sameRows(d.t, what, string(b), exactOracle(d.t, conn))
}

func sameRows(t testing.TB, what, file string, want []string) {
	t.Helper()
	got, err := filetest.Rows([]byte(file))
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) {
		t.Fatalf("%s: %d rows, want %d", what, len(got), len(want))
	}
	said := map[string]bool{}
	for i := range got {
		if got[i] == want[i] {
			continue
		}
		names, values := members(t, got[i])
		wantNames, wantValues := members(t, want[i])
		if !slices.Equal(names, wantNames) {
			t.Fatalf("%s: row %d has columns %q, want %q", what, i, names, wantNames)
		}
		for k := range names {
			if values[k] != wantValues[k] && !said[names[k]] {
				said[names[k]] = true
				t.Errorf("%s: row %d, column %s:\n%.300s\nwant\n%.300s", what, i, names[k], values[k], wantValues[k])
			}
		}
	}
	if len(said) > 0 {
		t.FailNow()
	}
}

// members returns the names and values of an object, in order.
func members(t testing.TB, object string) (names, values []string) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(object))
	if _, err := d.Token(); err != nil {
		t.Fatalf("%v in %.300s", err, object)
	}
	for d.More() {
		name, err := d.Token()
		var value json.RawMessage
		if err == nil {
			err = d.Decode(&value)
		}
		if err != nil {
			t.Fatalf("%v in %.300s", err, object)
		}
		names, values = append(names, name.(string)), append(values, string(value))
	}
	return names, values
}

// TestUnwrittenWAL: Snapshot returns soon, even if the newest WAL is not on disk yet and no commit flushes it.
func TestUnwrittenWAL(t *testing.T) {
	url := pgserver.Database(t)
	conn := connect(t, url)
	exec(t, conn, votes)
	d := start(t, config(t, url))
	d.ready()
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), busy.Limit(patience/6))
		exec(t, conn, "BEGIN")
		exec(t, conn, "SELECT pg_logical_emit_message(false, 'capture', 'left behind')")
		exec(t, conn, "ROLLBACK")
		if _, err := d.Snapshot(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
}
