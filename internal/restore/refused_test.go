package restore_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"capture/internal/restore"
)

func TestErrorNamesTheRefusedRow(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1);
		CREATE TABLE t (id int PRIMARY KEY, n int CHECK (n < 100), s varchar(5), at timestamp, who int REFERENCES users,
			late int REFERENCES users DEFERRABLE INITIALLY DEFERRED, u text UNIQUE, "odd: name" int)`)
	row := func(id int, rest string) string { return fmt.Sprintf(`{"id":%d,"n":1,"s":"a"%s}`, id, rest) }
	var many []string
	for i := range 300 {
		many = append(many, row(i, ""))
	}
	for _, c := range []struct {
		bad   string
		words []string
	}{
		{`{"id":"five","n":1,"s":"a"}`, []string{"line 201", `(id "five")`, `column "id"`, "invalid input syntax for type integer"}},
		{`{"id":5000,"n":"SECRET 1","s":"a"}`, []string{"line 201", "id 5000", `column "n"`, "invalid input syntax"}},
		{`{"id":5000,"n":99999999999,"s":"a"}`, []string{"line 201", "id 5000", `column "n"`, "out of range"}},
		{`{"id":5000,"n":1,"s":"SECRET"}`, []string{"line 201", "id 5000", `column "s"`, "too long"}},
		{`{"id":5000,"n":100,"s":"a"}`, []string{"line 201", "id 5000", `check "t_n_check"`}},
		{`{"id":null,"n":1,"s":"a"}`, []string{"line 201", "id null", `column "id" may not be NULL`}},
		{`{"id":5000,"n":1,"s":"a\u0000"}`, []string{"line 201", "id 5000", `column "s"`, "zero character"}},
		{`{"id":5000,"n":1,"s":"\ud800"}`, []string{"line 201", "id 5000", "surrogate"}},
		{`{"id":7,"n":1,"s":"a"}`, []string{"line 201", "id 7", "two such rows"}},
		{`{"id":5000,"n":1}`, []string{"line 201", "columns are not those of the first row"}},
		{`{"id":5000,"n":1,"x":"a"}`, []string{"line 201", `it lacks "s"`}},
		{`{"id":5000,"n":1,"s":{"SECRET":1}`, []string{"line 201", "not valid JSON", "last good row is at line 200 (id 198)"}},
		{`{"id":5000,"n":1,"s":"a"`, []string{"line 201", "not valid JSON"}},
		{`{"id":5000,"n":1,"s":"a}`, []string{"line 201", "not valid JSON", "last good row is at line 200 (id 198)"}},
		{`{"id":5000,"n":1,"s":"a",}`, []string{"line 201", "not valid JSON"}},
		{"{\"id\":5000,\"n\":1,\"s\":\"\xff\"}", []string{"line 201", "not valid UTF-8"}},
		{`[1]`, []string{"line 201", "does not start with {"}},
	} {
		lines := append([]string(nil), many...)
		lines[199] = c.bad
		path := d.WriteFile("[\n" + strings.Join(lines, ",\n") + "\n]\n")
		d.wantRefused(restore.Options{Path: path, Table: d.Name("t")}, c.words...)
		if n := d.Query("SELECT count(*) FROM t"); n != "0" {
			t.Fatalf("%s left %s rows", c.bad, n)
		}
	}
	check := func(o restore.Options) {
		t.Helper()
		o.Table = d.Name("t")
		o.Path = d.WriteFile(`[{"id":1,"u":"x","who":1,"late":1},{"id":2,"u":"y","who":5,"late":1}]`)
		d.wantRefused(o, "line 1 (id 2)", `foreign key "t_who_fkey"`, "restore table public.users first")
		o.Path = d.WriteFile(`[{"id":1,"u":"x","who":1,"late":1},
			{"id":2,"u":"x","who":1,"late":1}]`)
		d.wantRefused(o, "line 2 (id 2)", `unique constraint "t_u_key"`)
		o.Path = d.WriteFile(`[{"id":1,"u":"x","who":1,"late":5}]`)
		d.wantRefused(o, "deferred", `foreign key "t_late_fkey"`)
		o.Path = d.WriteFile(`[{"id":1,"odd: name":"SECRET"}]`)
		d.wantRefused(o, "line 1 (id 1)", `column "odd: name"`)
	}
	check(restore.Options{})
	check(restore.Options{DryRun: true})
	d.Exec("INSERT INTO t VALUES (50)")
	check(restore.Options{OnConflict: restore.Overwrite})
	check(restore.Options{OnConflict: restore.Skip, DryRun: true})
	d.wantRefused(restore.Options{Table: d.Name("t"), OnConflict: restore.Skip, Path: d.WriteFile("[{\"id\":1},\n{\"id\":1}]")}, "the key 1 twice", "lines 1 and 2")
	d.wantRefused(restore.Options{Table: d.Name("t"), Path: d.WriteFile("[{\"id\":1},\n{\"id\":1}]")}, "line 2 (id 1)", `unique constraint "t_pkey"`)
	for content, word := range map[string]string{"": "empty", "{}": "the file lacks column \"id\"", "x": "the file is not JSON", "[1]": "{", "[] x": "after the end", "[{}": "key", "[{}] x": "key", "[": "cut short", "[{\"id\":1}": "cut short", "[{\"id\":1}] x": "after the end",
		`[{"id":1,"id":1}]`: "twice"} {
		d.wantRefused(restore.Options{Table: d.Name("t"), Path: d.WriteFile(content)}, word)
	}
}

func TestRefusesDamagedFile(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(500)
	path := d.Export("votes")
	d.Exec("TRUNCATE votes")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	write := func(path string, content []byte) {
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cut := content[:len(content)/2]
	write(path, cut)
	d.wantRefused(restore.Options{Path: path}, "manifest", "bytes", "damaged, cut short or edited")
	flipped := append([]byte(nil), content...)
	at := strings.Index(string(content), "question 77")
	flipped[at] ^= 4
	write(path, flipped)
	d.wantRefused(restore.Options{Path: path}, "manifest", "SHA-256")
	flipped[at] = 0
	write(path, flipped)
	d.wantRefused(restore.Options{Path: path}, "manifest", "SHA-256", "line 78", "not valid JSON")
	write(path, content)
	if out, err := exec.Command("gzip", "-k", path).CombinedOutput(); err != nil {
		t.Fatalf("%v %s", err, out)
	}
	zipped, err := os.ReadFile(path + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	write(path+".gz", zipped[:len(zipped)/2])
	d.wantRefused(restore.Options{Path: path + ".gz"}, "cut short or damaged")
	if n := d.Query("SELECT count(*) FROM votes"); n != "0" {
		t.Errorf("%s rows are there", n)
	}
	write(path+".gz", zipped)
	if res := d.restore(restore.Options{Path: path + ".gz", DryRun: true}); !res.Checked || res.Inserted.Rows != 500 {
		t.Errorf("the result is %+v", res)
	}
	f, err := os.Open(path + ".gz")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if res := d.restore(restore.Options{Path: "-", Stdin: f}); res.Checked || res.Inserted.Rows != 500 {
		t.Errorf("the result is %+v", res)
	}
	if err := os.Remove(strings.TrimSuffix(path, ".json") + ".manifest.json"); err != nil {
		t.Fatal(err)
	}
	if res := d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite}); res.Checked || res.Unchanged != 500 {
		t.Errorf("the result is %+v", res)
	}
}

// functionsThatQuoteRows lists bodies of trigger functions. Their errors contain the text in column v of the new row. In
// these errors, the text is not quoted by the server, or it is used as the name of an object. REMOTE is a connection string
// for the same database.
var functionsThatQuoteRows = map[string]string{
	"RAISE":                "RAISE 'no %', new.v",
	"RAISE of a privilege": "RAISE insufficient_privilege USING MESSAGE = 'no ' || new.v",
	"table":                "EXECUTE format('INSERT INTO %I VALUES (1)', new.v)",
	"table on two lines":   "EXECUTE format(E'INSERT INTO %I\\nVALUES (1)', E'a\\nPL/' || new.v)",
	"function":             "EXECUTE format('SELECT %I()', new.v)",
	"schema":               "EXECUTE format('SELECT %I.f()', new.v)",
	"role":                 "EXECUTE format('SET ROLE %I', new.v)",
	"type":                 "EXECUTE format('SELECT NULL::%I', new.v)",
	"syntax":               "EXECUTE 'SELECT 1 FROM ' || new.v || ' x y z'",
	"file":                 "PERFORM pg_read_file('/' || new.v)",
	"lost connection":      "PERFORM dblink_connect('host=' || new.v || ' connect_timeout=1')",
	"error by dblink":      "PERFORM dblink_exec('REMOTE', format('DO %L', format('BEGIN RAISE %L USING ERRCODE = %L; END', 'no ' || new.v, '3D000')))",
	"privilege by dblink":  "PERFORM dblink_exec('REMOTE', format('DO %L', format('BEGIN RAISE %L USING ERRCODE = %L; END', 'no ' || new.v, '42501')))",
	"data by dblink":       "PERFORM dblink_exec('REMOTE', format('DO %L', format('BEGIN RAISE %L USING ERRCODE = %L; END', 'no ' || new.v, '22023')))",
}

// TestErrorsInFunctionsAreHidden checks that no error shows a row's text that a trigger function puts into a message or into a
// statement.
func TestErrorsInFunctionsAreHidden(t *testing.T) {
	if testing.Short() {
		t.Skip("restores many tables")
	}
	t.Parallel()
	d := newDB(t)
	d.Exec("CREATE EXTENSION dblink; CREATE TABLE t (id int PRIMARY KEY, v text); INSERT INTO t VALUES (1, 'SECRET'), (2, 'SECRET')")
	path := d.Export("t")
	remote := fmt.Sprintf("host=%s port=%d dbname=%s user=%s", d.Config.Host, d.Config.Port, d.Config.Database, d.Config.User)
	for name, body := range functionsThatQuoteRows {
		d.Exec(`TRUNCATE t; CREATE OR REPLACE FUNCTION "writes it"() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN ` + strings.ReplaceAll(body, "REMOTE", remote) + "; RETURN new; END$$")
		for _, when := range []string{"BEFORE INSERT ON t FOR EACH ROW", "AFTER INSERT ON t FOR EACH ROW", "AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW"} {
			create := "CREATE TRIGGER"
			if strings.Contains(when, "DEFERRABLE") {
				create = "CREATE CONSTRAINT TRIGGER"
			}
			d.Exec(create + " fires " + when + ` EXECUTE FUNCTION "writes it"()`)
			for _, dry := range []bool{true, false} {
				if err := d.wantRefused(restore.Options{Path: path, DryRun: dry}, "SQLSTATE"); t.Failed() {
					t.Fatalf("%s, %s: %v", name, when, err)
				}
			}
			d.Exec("DROP TRIGGER fires ON t")
		}
	}
}

// TestRefusedValuesAreHidden checks that no error shows a refused value. In some cases, the server's error contains the
// value without quotation marks. In others, the value is in a place where the error usually names a function.
func TestRefusedValuesAreHidden(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	for column, value := range map[string]string{
		"v varchar(20)": "abc\nPL/SECRET my own text that is too long",
		"v int":         "abc\nPL/pgSQL function SECRET() line 1 at RAISE",
		"v text CHECK (to_tsquery('simple', v) IS NOT NULL OR v IS NULL)":                      "SECRET text",
		"v text CHECK (query_to_xml('SELECT ' || v, true, true, '') IS NOT NULL OR v IS NULL)": "SECRET(now())",
		"v text CHECK (query_to_xml('SELECT ' || v, true, true, '') IS NULL OR v IS NULL)":     "SECRET.x",
		"v regclass":  "SECRET.a.b.c.d",
		"v regconfig": "SECRET",
		"v text, g tsvector GENERATED ALWAYS AS (to_tsvector(v::regconfig, '')) STORED": "SECRET",
	} {
		if strings.Contains(column, "GENERATED") {
			d.Exec("CREATE FUNCTION config(text) RETURNS regconfig IMMUTABLE LANGUAGE sql AS 'SELECT $1::regconfig'")
			column = strings.Replace(column, "v::regconfig", "config(v)", 1)
		}
		d.Exec("CREATE TABLE t (id int PRIMARY KEY, " + column + ")")
		text, err := json.Marshal(value)
		if err != nil {
			t.Fatal(err)
		}
		path := d.WriteFile(fmt.Sprintf(`[{"id":1,"v":%s}]`, text))
		for _, more := range []string{"", "INSERT INTO t (id) VALUES (2)"} {
			d.Exec(more)
			for _, dry := range []bool{true, false} {
				err := d.wantRefused(restore.Options{Path: path, Table: d.Name("t"), OnConflict: restore.Overwrite, DryRun: dry}, "SQLSTATE")
				if strings.Contains(strings.ToUpper(err.Error()), "SECRET") {
					t.Errorf("%s: %v", column, err)
				}
			}
		}
		d.Exec("DROP TABLE t")
	}
}

// TestReferenceToLostTable restores rows that refer to a lost row of another table. It checks that the error names the other
// table, with every way to write the rows, and with foreign keys that are checked at once or at the commit.
func TestReferenceToLostTable(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE SCHEMA "App"; CREATE TABLE "App"."the users" (id int PRIMARY KEY); INSERT INTO "App"."the users" VALUES (1);
		CREATE TABLE t (id int PRIMARY KEY, who int REFERENCES "App"."the users"); INSERT INTO t VALUES (1, 1);
		CREATE TABLE late (id int PRIMARY KEY, who int REFERENCES "App"."the users" DEFERRABLE INITIALLY DEFERRED); INSERT INTO late VALUES (1, 1);
		CREATE TABLE part (id int PRIMARY KEY, who int REFERENCES "App"."the users") PARTITION BY RANGE (id);
		CREATE TABLE part1 PARTITION OF part FOR VALUES FROM (0) TO (9); INSERT INTO part VALUES (1, 1);
		CREATE TABLE audit (id int REFERENCES "App"."the users");
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO audit VALUES (new.id); RETURN new; END$$;
		CREATE TABLE noted (id int PRIMARY KEY); INSERT INTO noted VALUES (1); CREATE TRIGGER writes BEFORE INSERT ON noted FOR EACH ROW EXECUTE FUNCTION note();
		CREATE TABLE own (id int PRIMARY KEY, parent int REFERENCES own); INSERT INTO own VALUES (1, 1)`)
	const hint = `hint: restore table "App"."the users" first, so that it has the row`
	paths := map[string]string{}
	for _, table := range []string{"t", "late", "part", "noted", "own"} {
		paths[table] = d.Export(table)
		d.Exec("DELETE FROM " + table)
	}
	d.Exec(`TRUNCATE audit; DELETE FROM "App"."the users"`)
	for _, table := range []string{"t", "late", "part", "noted"} {
		for _, o := range []restore.Options{{}, {DryRun: true}, {OnConflict: restore.Skip}, {OnConflict: restore.Overwrite, DeleteExtra: true}} {
			o.Path = paths[table]
			if err := d.wantRefused(o, hint); strings.Contains(err.Error(), "--disable-triggers") != (table != "noted") {
				t.Errorf("%s: %v", table, err)
			}
		}
	}
	d.Exec("INSERT INTO t (id) VALUES (1); INSERT INTO late (id) VALUES (1)") // the next restores overwrite these rows
	for _, table := range []string{"t", "late"} {
		d.wantRefused(restore.Options{Path: paths[table], OnConflict: restore.Overwrite}, hint)
	}
	d.restore(restore.Options{Path: paths["t"], OnConflict: restore.Overwrite, DisableTriggers: true})
	err := d.wantRefused(restore.Options{Path: d.WriteFile(`[{"id":1,"parent":2}]`), Table: d.Name("own")}, `foreign key "own_parent_fkey"`)
	if strings.Contains(err.Error(), "first") {
		t.Errorf("the row is missing in the file itself: %v", err)
	}
}
