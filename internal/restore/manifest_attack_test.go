package restore_test

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"capture/internal/postgres"
	"capture/internal/restore"
	"capture/internal/statefile"
	"capture/internal/verify"
	"capture/snapshot/rowjson"
	"capture/store/manifest"
)

// writeManifest replaces the manifest of the file at path.
func writeManifest(t *testing.T, path string, m manifest.Manifest) {
	t.Helper()
	data, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(manifest.Path(path), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// payloads are texts that try to break out of their place in an SQL statement. Most of them, if they succeed, create a table
// named owned, add a column named evil, or call a function of the attacker.
var payloads = []string{
	`text, PRIMARY KEY (id)); COMMIT; CREATE TABLE public.owned (); COMMIT; BEGIN; CREATE TEMP TABLE z (id int`,
	`text); CREATE TABLE public.owned (); --`,
	`text DEFAULT public.own()`,
	`text CHECK (public.own() IS NULL)`,
	`text GENERATED ALWAYS AS (public.own()) STORED`,
	`text) INHERITS (pg_catalog.pg_class`,
	`text COLLATE "C", evil text DEFAULT public.own()`,
	`text -- `,
	`text /*`,
	"text\x00); CREATE TABLE public.owned ()",
	`x"; CREATE TABLE public.owned (); --`,
	`x'); CREATE TABLE public.owned (); --`,
	`public.own()`,
	`(SELECT public.own())`,
	`'a'::text || public.own()`,
	`1) STORED, evil text DEFAULT (public.own()`,
	`now(), ADD COLUMN evil text DEFAULT public.own()`,
	`'x', ALTER COLUMN id SET DEFAULT length(public.own())`,
	`E'\'' || public.own() || '`,
	`$$x$$::text || public.own()`,
	`'1'::public.evil`,
	`1::public.evil_int`,
	`nextval('public.own()'::regclass); SELECT public.own()`,
	`pg_read_file('/etc/passwd')`,
	`set_config('search_path', 'evil', false)`,
	`a", "b`,
}

func onePartition(name, bound string) []rowjson.Partition {
	return []rowjson.Partition{{Name: name, Bound: bound}}
}

func TestManifestIsData(t *testing.T) {
	if testing.Short() {
		t.Skip("tries many hostile manifests")
	}
	t.Parallel()
	d := newDB(t)
	// A call of own() or own_cast() leaves a trace that survives a rollback: the value of a sequence.
	d.Exec(`CREATE SEQUENCE calls; CREATE FUNCTION own() RETURNS text LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM nextval('public.calls'); RETURN 'owned'; END $$;
		CREATE DOMAIN evil_int AS text; CREATE FUNCTION own_cast(int) RETURNS evil_int LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.calls'); RETURN 'x'; END $$`)
	d.Exec(`CREATE TABLE origin (id int PRIMARY KEY, t text); INSERT INTO origin VALUES (1, 'x')`)
	path := d.Export("origin")
	d.Exec("DROP TABLE origin")
	honest, err := manifest.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	inspect := func(what string, tables int) {
		t.Helper()
		got := d.Query(`SELECT to_regclass('public.owned') IS NULL, (SELECT is_called FROM calls), (SELECT count(*) FROM pg_attribute WHERE attname = 'evil'),
			(SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace)`)
		if got != fmt.Sprintf("t|f|0|%d", tables) {
			t.Errorf("%s: owned is missing, own was called, evil columns, tables: %s", what, got)
			d.Exec("DROP TABLE IF EXISTS owned; SELECT setval('calls', 1, false)")
		}
	}
	// A bad value in one of the optional fields must not make the restore fail, so a single manifest tests the payload in
	// all of these fields.
	const optional = "optional fields"
	fields := map[string]func(*manifest.Manifest, string){
		"table":     func(m *manifest.Manifest, s string) { m.Table.Name = s },
		"schema":    func(m *manifest.Manifest, s string) { m.Table.Schema = s },
		"column":    func(m *manifest.Manifest, s string) { m.Columns[1].Name = s },
		"type":      func(m *manifest.Manifest, s string) { m.Columns[1].TypeName = s },
		"generated": func(m *manifest.Manifest, s string) { m.Columns[1].Default, m.Columns[1].Generated = s, "s" },
		"flag":      func(m *manifest.Manifest, s string) { m.Columns[1].Generated = s },
		"identity":  func(m *manifest.Manifest, s string) { m.Columns[0].Identity = s },
		"key":       func(m *manifest.Manifest, s string) { m.Key = []string{s} },
		optional: func(m *manifest.Manifest, s string) {
			m.Columns[0].Default, m.Columns[0].Sequence = s, &rowjson.SequenceOptions{Increment: 0, Max: -1, Cache: -5, Cycle: true}
			m.Columns[1].Default = s
			m.Columns = append(m.Columns, rowjson.Column{Name: "c", TypeName: "text", Default: s, Collation: s}) // the file lacks this column
			m.SystemID, m.Database, m.LSN, m.WrittenBy = s, s, s, s
			m.Source, m.ServerVersion, m.Reason = s, s, manifest.Reason(s)
		},
		"partition key": func(m *manifest.Manifest, s string) {
			m.Partitioning = &rowjson.Partitioning{Strategy: "RANGE", Columns: []string{s}, Definition: s, Partitions: onePartition("p", "FOR VALUES FROM (0) TO (10)")}
		},
		"strategy": func(m *manifest.Manifest, s string) {
			m.Partitioning = &rowjson.Partitioning{Strategy: s, Columns: []string{"id"}, Partitions: onePartition("p", "FOR VALUES FROM (0) TO (10)")}
		},
		"partition": func(m *manifest.Manifest, s string) {
			m.Partitioning = &rowjson.Partitioning{Strategy: "RANGE", Columns: []string{"id"}, Partitions: onePartition(s, "FOR VALUES FROM (0) TO (10)")}
		},
		"bound": func(m *manifest.Manifest, s string) {
			m.Partitioning = &rowjson.Partitioning{Strategy: "LIST", Columns: []string{"id"}, Partitions: onePartition("p", s)}
		},
		"value": func(m *manifest.Manifest, s string) {
			m.Partitioning = &rowjson.Partitioning{Strategy: "LIST", Columns: []string{"id"}, Partitions: onePartition("p", "FOR VALUES IN ("+s+")")}
		},
		"range": func(m *manifest.Manifest, s string) {
			m.Partitioning = &rowjson.Partitioning{Strategy: "RANGE", Columns: []string{"id"}, Partitions: onePartition("p", "FOR VALUES FROM ("+s+") TO (MAXVALUE)")}
		},
	}
	for field, set := range fields {
		dryRuns := []bool{false} // a full run does all that a dry run does
		if slices.Contains([]string{"table", optional, "generated"}, field) {
			dryRuns = []bool{true, false}
		}
		for _, payload := range payloads {
			m := honest
			m.Columns, m.Key = slices.Clone(honest.Columns), slices.Clone(honest.Key)
			set(&m, payload)
			writeManifest(t, path, m)
			for _, dryRun := range dryRuns {
				what := fmt.Sprintf("%s %q, dry run %t", field, payload, dryRun)
				res, err := restore.Restore(context.Background(), d.Conn, restore.Options{Path: path, Create: true, DryRun: dryRun})
				if status := d.Conn.PgConn().TxStatus(); status != 'I' {
					t.Fatalf("%s: the transaction is left in state %c", what, status)
				}
				if err != nil && field == optional {
					t.Errorf("%s: %v", what, err)
				}
				tables := 0
				if err == nil && !dryRun {
					tables = 1
				}
				inspect(what, tables)
				if tables > 0 {
					d.Exec("DROP TABLE " + postgres.Name{Schema: m.Table.Schema, Table: m.Table.Name}.Quoted())
				}
				for _, text := range append(res.Notes, fmt.Sprint(err)) {
					if strings.Contains(text, "\x00") {
						t.Errorf("%s: a note or error has a zero byte: %q", what, text)
					}
				}
			}
		}
	}
}

// TestManifestRunsNoFunctionsOfTypes checks that no expression of a manifest runs a function that belongs to a type, such as
// the CHECK constraint of a domain or a cast function of an enum. An expression that would do this must be left out with a
// note, be it a default, a generated column or the bound of a partition. If Postgres runs such functions to read the values
// of a column's type, a note must name this type, too.
func TestManifestRunsNoFunctionsOfTypes(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	// Each call of own() leaves a trace that survives a rollback: the value of a sequence.
	d.Exec(`CREATE SEQUENCE calls; CREATE FUNCTION own() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM nextval('public.calls'); RETURN true; END $$;
		CREATE DOMAIN trap AS text CHECK (own()); CREATE DOMAIN traps AS text[] CHECK (own()); CREATE TYPE holder AS (t trap); CREATE TYPE span AS RANGE (subtype = trap);
		CREATE TYPE mood AS ENUM ('sad'); CREATE TYPE voice AS ENUM ('loud');
		CREATE FUNCTION from_voice(voice) RETURNS json LANGUAGE sql AS $$ SELECT 'null'::json WHERE own() $$; CREATE CAST (voice AS json) WITH FUNCTION from_voice;
		CREATE FUNCTION count_traps(trap[]) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT 1';
		CREATE FUNCTION from_mood(mood) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT own()::text $$; CREATE CAST (mood AS text) WITH FUNCTION from_mood AS IMPLICIT;
		CREATE FUNCTION at_mood(mood) RETURNS timestamptz LANGUAGE sql AS $$ SELECT now() WHERE own() $$; CREATE CAST (mood AS timestamptz) WITH FUNCTION at_mood AS IMPLICIT;
		CREATE FUNCTION to_mood(int) RETURNS mood LANGUAGE sql IMMUTABLE AS $$ SELECT 'sad'::mood WHERE own() $$; CREATE CAST (int AS mood) WITH FUNCTION to_mood AS IMPLICIT;
		CREATE TABLE origin (id int PRIMARY KEY, t text); INSERT INTO origin VALUES (1, 'x')`)
	path := d.Export("origin")
	d.Exec("DROP TABLE origin")
	honest, err := manifest.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	// The file has none of these columns, so the restored row gets their defaults.
	hostile := []rowjson.Column{
		{TypeName: "text", Default: "'x'::public.trap"}, {TypeName: "text", Default: "NULL::public.trap"}, {TypeName: "text", Default: "('x'::text)::public.trap"},
		{TypeName: "text[]", Default: "'{x}'::public.trap[]"}, {TypeName: "text[]", Default: "'{x}'::public.traps"}, {TypeName: "text", Default: "'(x)'::public.holder"},
		{TypeName: "text", Default: "'[x,y]'::public.span"}, {TypeName: "text", Default: "'sad'::public.mood"}, {TypeName: "text", Default: "('sad'::public.mood)::text"},
		{TypeName: "mood", Default: "1"}, {TypeName: "mood[]", Default: "ARRAY[1]"}, {TypeName: "timestamp", Default: "('sad'::public.mood AT TIME ZONE 'utc'::text)"},
		{TypeName: "timestamp", Default: "timezone('utc'::text, 'sad'::public.mood)"}, {TypeName: "text[]", Default: "ARRAY['sad'::public.mood, 'x'::text]"},
		{TypeName: "text[]", Default: "ARRAY['sad'::public.mood]"},
		{TypeName: "text", Default: "'x'::public.trap", Generated: "s"}, {TypeName: "text", Default: "'sad'::public.mood", Generated: "s"}, {TypeName: "mood", Default: "id", Generated: "s"},
		// Postgres reads these constants while it parses the expression.
		{TypeName: "text[]", Default: "'{x}'::public.trap[]", Generated: "s"}, {TypeName: "text", Default: "('(x)'::public.holder)::text", Generated: "s"},
		{TypeName: "text", Default: "('[x,y]'::public.span)::text", Generated: "s"}, {TypeName: "integer", Default: "public.count_traps('{x}')", Generated: "s"},
		{TypeName: "text", Default: `(JSON_VALUE('"x"'::jsonb, '$' RETURNING public.trap))::text`, Generated: "s"}, // since PostgreSQL 17
	}
	harmless := []rowjson.Column{
		{TypeName: "mood", Default: "'sad'::public.mood"}, {TypeName: "mood[]", Default: "ARRAY['sad'::public.mood]"}, {TypeName: "mood[]", Default: "'{sad}'::public.mood[]"},
		{TypeName: "text", Default: "'x'::text COLLATE \"C\""}, // accepted by Postgres, but left out by restore, because a default rarely has a collation
	}
	m := honest
	m.Columns = slices.Clone(honest.Columns)
	for i, column := range slices.Concat(hostile, harmless) {
		column.Name = fmt.Sprintf("c%d", i)
		m.Columns = append(m.Columns, column)
	}
	writeManifest(t, path, m)
	res := d.restore(restore.Options{Path: path, Create: true})
	notes := strings.Join(res.Notes, "\n")
	for i, column := range hostile {
		if !strings.Contains(notes, fmt.Sprintf(`column "c%d" is created`, i)) {
			t.Errorf("no note says that %s of type %s was left out:\n%s", column.Default, column.TypeName, notes)
		}
	}
	if got := d.Query("SELECT count(adbin) FROM pg_attrdef WHERE adrelid = 'origin'::regclass"); got != "3" {
		t.Errorf("%s columns have defaults, not 3:\n%s", got, notes)
	}
	for _, partitioning := range []rowjson.Partitioning{
		{Strategy: "LIST", Columns: []string{"id"}, Partitions: onePartition("p", "FOR VALUES IN (('1'::public.trap))")},
		{Strategy: "LIST", Columns: []string{"m"}, Partitions: onePartition("p", "FOR VALUES IN (1)")},
		{Strategy: "RANGE", Columns: []string{"id", "m"}, Partitions: onePartition("p", "FOR VALUES FROM (0, 1) TO (9, MAXVALUE)")},
	} {
		d.Exec("DROP TABLE origin")
		m := honest
		m.Columns, m.Key, m.Partitioning = append(slices.Clone(honest.Columns), rowjson.Column{Name: "m", TypeName: "mood"}), nil, &partitioning
		writeManifest(t, path, m)
		if res := d.restore(restore.Options{Path: path, Create: true}); !strings.Contains(strings.Join(res.Notes, "\n"), "created without partitions") {
			t.Errorf("%+v: the notes are %s", partitioning, res.Notes)
		}
	}
	if d.Query("SELECT is_called FROM calls") != "f" {
		t.Error("a function of a type was called")
	}
	for typ, printed := range map[string]string{"trap": "trap", "public.trap[]": "trap[]", "holder": "holder", "mood": "", "voice": "voice", "voice[]": "voice[]"} {
		d.Exec("DROP TABLE origin")
		m := honest
		m.Columns = append(slices.Clone(honest.Columns), rowjson.Column{Name: "v", TypeName: typ})
		writeManifest(t, path, m)
		res := d.restore(restore.Options{Path: path, Create: true})
		if notes := strings.Join(res.Notes, "\n"); strings.Contains(notes, `column "v" has the type `+printed+":") != (printed != "") {
			t.Errorf("a column of type %s has the notes %s", typ, notes)
		}
	}
}

func TestExpressionsOfManifestAreLeftOutUnlessAskedFor(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE FUNCTION own() RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT 'own' $$; CREATE TYPE mood AS ENUM ('sad', 'so so');
		CREATE TABLE t (id int PRIMARY KEY, a text DEFAULT own(), b text GENERATED ALWAYS AS (own()) STORED, c text GENERATED ALWAYS AS (upper('x' || id)) STORED,
			d timestamp(3) DEFAULT (now() AT TIME ZONE 'utc'), e text[] DEFAULT ARRAY['it''s', 'b\'], f numeric(10,2) DEFAULT '-1.5', g mood DEFAULT 'so so',
			h uuid DEFAULT gen_random_uuid(), i date DEFAULT CURRENT_DATE, j jsonb NOT NULL DEFAULT '{}', k interval day to second(2) DEFAULT '1 day',
			l bit(3) DEFAULT '101', m "char" DEFAULT 'x', n boolean DEFAULT false, o int DEFAULT -1, p bigint DEFAULT 5, q mood[] DEFAULT '{sad}', r time(0) with time zone,
			s timestamptz DEFAULT timezone('utc', now()), u varchar(7)[] DEFAULT '{}');
		INSERT INTO t (id) VALUES (1)`)
	describe := func() string {
		return d.Query(`SELECT attname, format_type(atttypid, atttypmod), attgenerated, pg_get_expr(adbin, adrelid)
			FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum WHERE attrelid = 't'::regclass AND attnum > 0 ORDER BY attnum`)
	}
	want, row := describe(), d.Query("SELECT row_to_json(t) FROM t")
	path := d.Export("t")
	d.Exec("DROP TABLE t")
	res := d.restore(restore.Options{Path: path, Create: true})
	notes := strings.Join(res.Notes, "\n")
	for _, word := range []string{`column "a" is created without its default, own(): it is an expression`, `column "b" is created as an ordinary column`, "--expressions"} {
		if !strings.Contains(notes, word) {
			t.Errorf("the notes do not say %q:\n%s", word, notes)
		}
	}
	plain := strings.NewReplacer("a|text||own()", "a|text||", "b|text|s|own()", "b|text||").Replace(want)
	if got := describe(); got != plain {
		t.Errorf("created\n%s\nnot\n%s\nnotes\n%s", got, plain, notes)
	}
	if got := d.Query("SELECT row_to_json(t) FROM t"); got != row {
		t.Errorf("restored %s of %s", got, row)
	}
	d.Exec("DROP TABLE t")
	d.restore(restore.Options{Path: path, Create: true, Expressions: true})
	if got := describe(); got != want {
		t.Errorf("asked for expressions, created\n%s\nnot\n%s", got, want)
	}
}

// TestForgedKeyShowsNoTexts checks that verify and restore print no users' texts if a manifest names another key than the
// table's. This must hold for any type that the manifest gives the key. Numbers, times and UUIDs may be shown.
func TestForgedKeyShowsNoTexts(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	const uuid = "00000000-0000-0000-0000-00000000000a"
	d.Exec(`CREATE TABLE origin (id int PRIMARY KEY, n int, comment text, digits text); INSERT INTO origin VALUES
		(1, 70000, 'SECRET b', '5550199'), (2, 1, '` + uuid + `', '5550100'), (3, 0, 'SECRET a', '5550098')`)
	path := d.Export("origin")
	honest, err := manifest.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	d.Exec("ALTER TABLE origin DROP CONSTRAINT origin_pkey; UPDATE origin SET n = 2; INSERT INTO origin VALUES (4, 4, 'SECRET c', '5550097')")
	for _, c := range []struct {
		key   string
		types map[string]string // forged types of columns
		shown string            // text that the check without a database must print; "" if it need not mention the key
	}{
		{"comment", nil, uuid + " comes after …"}, {"comment", map[string]string{"comment": "date"}, ""}, {"digits", nil, "… comes after …"},
		{"digits", map[string]string{"digits": "bigint"}, "… comes after …"}, {"digits", map[string]string{"digits": "date"}, "… comes after …"}, {"digits", map[string]string{"digits": "oid"}, "… comes after …"}, {"n", nil, "1 comes after 70000"},
	} {
		m := honest
		m.Columns, m.Key = slices.Clone(honest.Columns), []string{c.key}
		for i, column := range m.Columns {
			m.Columns[i].TypeName = cmp.Or(c.types[column.Name], column.TypeName)
		}
		writeManifest(t, path, m)
		for _, o := range []verify.Options{{Path: path}, {Path: path, Database: d.Config}} {
			r, err := verify.Verify(context.Background(), o)
			if text := fmt.Sprintf("%+v %+v %v", r, r.Difference, err); r.OK || strings.Contains(text, "SECRET") || strings.Contains(text, "555") ||
				o.Database == nil && !strings.Contains(text, c.shown) || o.Database != nil && err == nil && !strings.Contains(text, "only the manifest names the key") {
				t.Errorf("key %s, types %v, database %t: %s", c.key, c.types, o.Database != nil, text)
			}
		}
		m.Columns[1].TypeName = "smallint" // the number in the first row is too large for smallint
		writeManifest(t, path, m)
		_, err := restore.Restore(context.Background(), d.Conn, restore.Options{Path: path, Create: true, Table: d.Name("made")})
		if err == nil || strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "555") || !strings.Contains(err.Error(), "line 2 ("+c.key) {
			t.Errorf("key %s, types %v: restored: %v", c.key, c.types, err)
		}
		m.Columns[1].TypeName = "integer"
		writeManifest(t, path, m)
		for _, conflict := range []restore.OnConflict{restore.Fail, restore.Skip} { // with Skip, the restore stages the rows
			res, err := restore.Restore(context.Background(), d.Conn, restore.Options{Path: path, Create: true, Table: d.Name("made"), OnConflict: conflict})
			if text := fmt.Sprintf("%+v %v", res, err); strings.Contains(text, "SECRET") || strings.Contains(text, "5550") {
				t.Errorf("key %s, types %v, %s: %s", c.key, c.types, conflict, text)
			}
			d.Exec("DROP TABLE IF EXISTS made")
		}
	}
}

func TestManifestsTableIsConfirmed(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE other (id int PRIMARY KEY); INSERT INTO other VALUES (1); CREATE TABLE votes (id int PRIMARY KEY)`)
	path, votes := d.Export("other"), d.Export("votes")
	d.Exec("TRUNCATE other")
	asked := ""
	refuse := func(table string) error { asked = table; return fmt.Errorf("not confirmed") }
	d.wantRefused(restore.Options{Path: path, ConfirmTable: refuse}, "not confirmed")
	if asked != "public.other" || d.Query("SELECT count(*) FROM other") != "0" {
		t.Errorf("asked about %q", asked)
	}
	d.wantRefused(restore.Options{Path: path, ConfirmTable: refuse, Edited: true}, "not confirmed")
	d.restore(restore.Options{Path: path, ConfirmTable: refuse, Table: d.Name("other")})
	d.restore(restore.Options{Path: path, ConfirmTable: refuse, DryRun: true, OnConflict: restore.Skip})
	d.restore(restore.Options{Path: votes, ConfirmTable: refuse})
}

func TestTransactionThatEndedIsNoticed(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE votes (id int PRIMARY KEY)`)
	path := d.WriteFile(`[{"id":1}]`)
	end := func(p statefile.Progress) { // its COMMIT stands for any event that ends the restore's transaction
		if p.Doing != "restoring" {
			return
		}
		if _, err := d.Conn.PgConn().Exec(context.Background(), "COMMIT; BEGIN").ReadAll(); err != nil {
			t.Error(err)
		}
	}
	for _, dryRun := range []bool{true, false} {
		d.wantRefused(restore.Options{Path: path, DryRun: dryRun, Progress: end}, "ended by something else", "public.votes may have changed")
		d.Exec("TRUNCATE votes")
	}
}
