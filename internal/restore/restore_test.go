package restore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"

	"capture/internal/postgres"
	"capture/internal/restore"
	"capture/internal/statefile/statefiletest"
)

func TestRoundTripOfVotes(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(5000)
	path := d.Export("votes")
	d.Exec("ALTER TABLE votes RENAME TO original; ALTER SEQUENCE votes_vote_id_seq RENAME TO original_seq")
	res := d.restore(restore.Options{Path: path, Create: true})
	if res.Table != "public.votes" || !res.Created || !res.Checked || res.Rows != 5000 || res.Inserted.Rows != 5000 {
		t.Errorf("the result is %+v", res)
	}
	d.WantSameRows("original", "votes", "vote_id")
	if id := d.Query("INSERT INTO votes (comment) VALUES ('next') RETURNING vote_id, \"timestamp\" IS NOT NULL"); id != "5001|t" {
		t.Errorf("the next row is %s", id)
	}
	if types := d.Query(`SELECT string_agg(format_type(atttypid, atttypmod) || attnotnull, ',' ORDER BY attnum) FROM pg_attribute
		WHERE attrelid = 'votes'::regclass AND attnum > 0`); types != "integertrue,textfalse,textfalse,jsonbfalse,text[]false,textfalse,jsonbfalse,timestamp without time zonefalse" {
		t.Errorf("the columns are %s", types)
	}
	if !strings.Contains(strings.Join(res.Notes, " "), "other indexes") {
		t.Errorf("the notes are %q", res.Notes)
	}
}

func TestOnConflict(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(100)
	path := d.Export("votes")
	d.Exec("CREATE TABLE kept AS TABLE votes; DELETE FROM votes WHERE vote_id <= 10; UPDATE votes SET comment = 'SECRET' WHERE vote_id = 50; INSERT INTO votes (comment) VALUES ('extra')")
	d.Exec("CREATE TABLE changed AS TABLE votes")

	err := d.wantRefused(restore.Options{Path: path}, "line 12", "vote_id 11", "--on-conflict")
	var conflict *restore.ConflictError
	if !errors.As(err, &conflict) {
		t.Errorf("the error is a %T", err)
	}
	d.wantRefused(restore.Options{Path: path, DryRun: true}, "90 rows", "line 12", "vote_id 11")
	d.WantSameRows("changed", "votes", "vote_id")

	res := d.restore(restore.Options{Path: path, OnConflict: restore.Skip, DryRun: true})
	if res.Inserted.Rows != 10 || res.Skipped.Rows != 90 || fmt.Sprint(res.Inserted.Keys) != "[1 2 3 4 5]" {
		t.Errorf("skip would do %+v", res)
	}
	res = d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true, DryRun: true})
	if res.Inserted.Rows != 10 || res.Overwritten.Rows != 1 || res.Unchanged != 89 || res.Deleted.Rows != 1 || fmt.Sprint(res.Deleted.Keys, res.Overwritten.Keys) != "[101] [50]" {
		t.Errorf("overwrite would do %+v", res)
	}
	d.WantSameRows("changed", "votes", "vote_id")
	if next := d.Query("SELECT last_value FROM votes_vote_id_seq"); next != "101" {
		t.Errorf("a dry run left the sequence at %s", next)
	}

	d.restore(restore.Options{Path: path, OnConflict: restore.Skip})
	if got := d.Query("SELECT count(*), count(*) FILTER (WHERE comment = 'SECRET') FROM votes"); got != "101|1" {
		t.Errorf("after skip there are %s", got)
	}
	asked := ""
	no := errors.New("no")
	_, err = restore.Restore(context.Background(), d.Conn, restore.Options{Path: path, OnConflict: restore.Overwrite,
		Confirm: func(table string, rows int64) error { asked = fmt.Sprint(table, rows); return no }})
	if !errors.Is(err, no) || asked != "public.votes101" {
		t.Errorf("asked %q, answered %v", asked, err)
	}
	res = d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true})
	if res.Overwritten.Rows != 1 || res.Unchanged != 99 || res.Deleted.Rows != 1 {
		t.Errorf("overwrite did %+v", res)
	}
	d.WantSameRows("kept", "votes", "vote_id")
	if id := d.Query("INSERT INTO votes (comment) VALUES ('next') RETURNING vote_id"); id != "102" {
		t.Errorf("the sequence went back to %s", id)
	}
}

// While the user is asked, neither an ALTER TABLE nor a statement of the application waits.
func TestConfirmHoldsNoLock(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(10)
	path := d.Export("votes")
	d.Exec("UPDATE votes SET comment = 'changed' WHERE vote_id = 3")
	app := &statefiletest.DB{T: t, Config: d.Config, Conn: d.Connect(d.Config)}
	app.Exec("SET lock_timeout = '5s'; SET statement_timeout = '5s'")
	asked := false
	res := d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite, Confirm: func(table string, rows int64) error {
		asked = true
		app.Exec("ALTER TABLE votes ADD COLUMN rating int")
		if got := app.Query("SELECT count(*) FROM votes"); got != "10" || table != "public.votes" || rows != 10 {
			t.Errorf("the application sees %s rows, the question is about %d of %s", got, rows, table)
		}
		app.Exec("UPDATE votes SET comment = 'by the application' WHERE vote_id = 4")
		state := app.Query(fmt.Sprintf("SELECT state, xact_start IS NULL FROM pg_stat_activity WHERE pid = %d", d.Conn.PgConn().PID()))
		if state != "idle|t" {
			t.Errorf("the restore's session is %s", state)
		}
		return nil
	}})
	if !asked || res.Overwritten.Rows != 2 || !strings.Contains(strings.Join(res.Notes, " "), `"rating" is not in the file`) {
		t.Errorf("asked %v, the result is %+v", asked, res)
	}
}

// The answer is for the rows that were there when the user was asked.
func TestConfirmedRowsAreCountedAgain(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(10)
	path := d.Export("votes")
	app := &statefiletest.DB{T: t, Config: d.Config, Conn: d.Connect(d.Config)}
	options := func(meanwhile string) restore.Options {
		return restore.Options{Path: path, DeleteExtra: true, OnConflict: restore.Overwrite,
			Confirm: func(string, int64) error { app.Exec(meanwhile); return nil }}
	}
	d.wantRefused(options("INSERT INTO votes (comment) VALUES ('new')"), "table public.votes has 11 rows now", "10 when you were asked", "--yes")
	if got := d.Query("SELECT count(*) FROM votes"); got != "11" {
		t.Errorf("%s rows are left", got)
	}
	if res := d.restore(options("DELETE FROM votes WHERE vote_id = 5")); res.Deleted.Rows != 1 || res.Inserted.Rows != 1 {
		t.Errorf("the result is %+v", res)
	}
}

func TestPythonExportersFile(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(statefiletest.VotesDDL)
	path := d.WriteFile(`[
    {
        "vote_id": 7,
        "user_query": "Wie geht's? \u00e9\ud83d\uddf3",
        "bot_response": "a\nb",
        "evaluation_json": {
            "score": 1.50,
            "tags": []
        },
        "feedback_tags": [
            "x",
            "y z"
        ],
        "comment": null,
        "citations": null,
        "timestamp": "2025-06-17 16:58:00"
    },
    {
        "vote_id": 9, "user_query": "", "bot_response": null, "evaluation_json": [], "feedback_tags": [], "comment": "{}", "citations": "s",
        "timestamp": "2025-06-17 16:58:00.25"
    }
]`)
	res := d.restore(restore.Options{Path: path})
	if res.Checked || res.Rows != 2 {
		t.Errorf("the result is %+v", res)
	}
	want := `7|Wie geht's? é🗳|{"tags": [], "score": 1.50}|{x,"y z"}||2025-06-17 16:58:00
9||[]|{}|"s"|2025-06-17 16:58:00.25`
	if got := d.Query(`SELECT vote_id, user_query, evaluation_json, feedback_tags, citations, "timestamp" FROM votes ORDER BY 1`); got != want {
		t.Errorf("the rows are\n%s", got)
	}
	if id := d.Query("INSERT INTO votes (comment) VALUES ('next') RETURNING vote_id"); id != "10" {
		t.Errorf("the next row is %s", id)
	}
}

func TestOtherColumns(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(3)
	path := d.Export("votes")
	d.Exec("TRUNCATE votes; ALTER TABLE votes ADD COLUMN rating int DEFAULT 5, ADD COLUMN long int GENERATED ALWAYS AS (length(bot_response)) STORED")
	res := d.restore(restore.Options{Path: path})
	if len(res.Notes) != 1 || !strings.Contains(res.Notes[0], `"rating" is not in the file: each new row gets its default, 5`) {
		t.Errorf("the notes are %q", res.Notes)
	}
	if got := d.Query("SELECT DISTINCT rating, long > 0 FROM votes"); got != "5|t" {
		t.Errorf("the new columns are %s", got)
	}
	path = d.Export("votes")
	d.Exec("UPDATE votes SET rating = 1, comment = NULL")
	if res := d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite}); res.Overwritten.Rows != 3 {
		t.Errorf("the result is %+v", res)
	}
	d.Exec("ALTER TABLE votes DROP COLUMN rating")
	d.wantRefused(restore.Options{Path: path, OnConflict: restore.Overwrite}, `column "rating"`, "which table public.votes lacks", `ADD COLUMN "rating" integer`)
	d.Exec("ALTER TABLE votes ADD COLUMN rating int, ADD COLUMN must text NOT NULL DEFAULT 'x'; ALTER TABLE votes ALTER must DROP DEFAULT")
	d.wantRefused(restore.Options{Path: path, OnConflict: restore.Overwrite}, `lacks column "must"`, "may not be NULL", "SET DEFAULT")
	d.Exec("ALTER TABLE votes DROP must")
	d.wantRefused(restore.Options{Path: d.WriteFile(`[{"comment":"a"}]`)}, `the file lacks column "vote_id", which is part of the key`)
	d.wantRefused(restore.Options{Path: path, Table: d.Name("nowhere")}, "nowhere does not exist", "--create", "--table")
	d.wantRefused(restore.Options{Path: d.WriteFile("[]"), Table: d.Name("nowhere"), Create: true}, "no manifest")
}

func TestBadRows(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE users (id int PRIMARY KEY); INSERT INTO users VALUES (1);
		CREATE TABLE t (id int PRIMARY KEY, n int CHECK (n < 100), s varchar(5), at timestamp, who int REFERENCES users,
			late int REFERENCES users DEFERRABLE INITIALLY DEFERRED, u text UNIQUE, "odd: name" int)`)
	row := func(id int, rest string) string { return fmt.Sprintf(`{"id":%d,"n":1,"s":"a"%s}`, id, rest) }
	var many []string
	for i := range 3000 {
		many = append(many, row(i, ""))
	}
	for _, c := range []struct {
		bad   string
		words []string
	}{
		{`{"id":"five","n":1,"s":"a"}`, []string{"line 2001", `(id "five")`, `column "id"`, "invalid input syntax for type integer"}},
		{`{"id":5000,"n":"SECRET 1","s":"a"}`, []string{"line 2001", "id 5000", `column "n"`, "invalid input syntax"}},
		{`{"id":5000,"n":99999999999,"s":"a"}`, []string{"line 2001", "id 5000", `column "n"`, "out of range"}},
		{`{"id":5000,"n":1,"s":"SECRET"}`, []string{"line 2001", "id 5000", `column "s"`, "too long"}},
		{`{"id":5000,"n":100,"s":"a"}`, []string{"line 2001", "id 5000", `check "t_n_check"`}},
		{`{"id":null,"n":1,"s":"a"}`, []string{"line 2001", "id null", `column "id" may not be NULL`}},
		{`{"id":5000,"n":1,"s":"a\u0000"}`, []string{"line 2001", "id 5000", `column "s"`, "zero character"}},
		{`{"id":5000,"n":1,"s":"\ud800"}`, []string{"line 2001", "id 5000", "surrogate"}},
		{`{"id":7,"n":1,"s":"a"}`, []string{"line 2001", "id 7", "two such rows"}},
		{`{"id":5000,"n":1}`, []string{"line 2001", "columns are not those of the first row"}},
		{`{"id":5000,"n":1,"x":"a"}`, []string{"line 2001", `it lacks "s"`}},
		{`{"id":5000,"n":1,"s":{"SECRET":1}`, []string{"line 2001", "not valid JSON", "last good row is at line 2000 (id 1998)"}},
		{`{"id":5000,"n":1,"s":"a"`, []string{"line 2001", "not valid JSON"}},
		{`{"id":5000,"n":1,"s":"a}`, []string{"line 2001", "not valid JSON", "last good row is at line 2000 (id 1998)"}},
		{`{"id":5000,"n":1,"s":"a",}`, []string{"line 2001", "not valid JSON"}},
		{"{\"id\":5000,\"n\":1,\"s\":\"\xff\"}", []string{"line 2001", "not valid UTF-8"}},
		{`[1]`, []string{"line 2001", "does not start with {"}},
	} {
		lines := append([]string(nil), many...)
		lines[1999] = c.bad
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
		d.wantRefused(o, "line 1 (id 2)", `foreign key "t_who_fkey"`, "restore that table first")
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
	for content, word := range map[string]string{"": "empty", "{}": "object, not an array", "x": "not a JSON array", "[1]": "{", "[] x": "after the end", "[{}": "key", "[{}] x": "key", "[": "cut short", "[{\"id\":1}": "cut short", "[{\"id\":1}] x": "after the end",
		`[{"id":1,"id":1}]`: "twice"} {
		d.wantRefused(restore.Options{Table: d.Name("t"), Path: d.WriteFile(content)}, word)
	}
}

func TestDamagedFile(t *testing.T) {
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

func TestTriggersAndRights(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, n int DEFAULT 3);
		CREATE TABLE seen (id bigint);
		CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO seen VALUES (NEW.id); RETURN NEW; END $$;
		CREATE TRIGGER see BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION see();
		CREATE TRIGGER never BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION see(); ALTER TABLE t DISABLE TRIGGER never;
		DROP ROLE IF EXISTS restorer; CREATE ROLE restorer LOGIN; DROP ROLE IF EXISTS restorers_owner; CREATE ROLE restorers_owner LOGIN;
		GRANT SELECT, INSERT, UPDATE, DELETE ON t TO restorer`)
	t.Cleanup(func() { d.Exec("DROP OWNED BY restorer, restorers_owner; DROP ROLE restorer, restorers_owner") })
	path := d.WriteFile(`[{"id":10,"v":"a"},{"id":11,"v":"b"}]`)
	name := d.Name("t")
	seen := func(want string) {
		t.Helper()
		if got := d.Query("SELECT count(*) FROM seen"); got != want {
			t.Errorf("the trigger saw %s rows, not %s", got, want)
		}
		d.Exec("TRUNCATE seen")
	}
	d.restore(restore.Options{Path: path, Table: name})
	seen("2")
	if id := d.Query("INSERT INTO t (v) VALUES ('next') RETURNING id, n"); id != "12|3" {
		t.Errorf("the next row is %s", id)
	}
	d.Exec("TRUNCATE t; TRUNCATE seen")
	d.restore(restore.Options{Path: path, Table: name, DisableTriggers: true})
	seen("0")

	other := d.as("restorer")
	d.Exec("TRUNCATE t")
	other.wantRefused(restore.Options{Path: path, Table: name, DisableTriggers: true}, "no right to disable the triggers", "owner")
	d.Exec("ALTER SEQUENCE t_id_seq RESTART WITH 1")
	other.wantRefused(restore.Options{Path: path, Table: name}, "no right to set sequence public.t_id_seq", "GRANT")
	d.Exec("GRANT SELECT, UPDATE ON SEQUENCE t_id_seq TO restorer")
	other.restore(restore.Options{Path: path, Table: name})
	seen("2")

	d.Exec("GRANT ALL ON SCHEMA public TO restorers_owner; ALTER TABLE t OWNER TO restorers_owner; TRUNCATE t")
	owner := d.as("restorers_owner")
	res := owner.restore(restore.Options{Path: path, Table: name, DisableTriggers: true})
	seen("0")
	if got := d.Query("SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 't'::regclass ORDER BY 1"); got != "never|D\nsee|O" {
		t.Errorf("the triggers are left as %s", got)
	}
	if !strings.Contains(strings.Join(res.Notes, " "), "foreign keys did") {
		t.Errorf("the notes are %q", res.Notes)
	}
	d.Exec("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
	_, err := restore.Restore(context.Background(), other.Conn, restore.Options{Path: path, Table: name})
	var problem *postgres.Problem
	if !errors.As(err, &problem) || !strings.Contains(err.Error(), "row-level security") {
		t.Errorf("row-level security gave %v", err)
	}
}

func TestCreateMakesWhatTheManifestKnows(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE SCHEMA app; CREATE FUNCTION app.made() RETURNS text LANGUAGE sql AS $$ SELECT 'made' $$;
		CREATE TABLE app."Odd ""t""" (a int, b bigint GENERATED BY DEFAULT AS IDENTITY, "c d" numeric(10,2) NOT NULL DEFAULT 1.50,
			e text DEFAULT app.made(), f int GENERATED ALWAYS AS (a * 2) STORED, g timestamptz DEFAULT now(), h smallserial, i varchar(7)[],
			j json NOT NULL, PRIMARY KEY (b, a));
		INSERT INTO app."Odd ""t""" (a, j) SELECT i, 'null' FROM generate_series(1, 10) i`)
	path := d.Export(`app."Odd ""t"""`)
	describe := func(schema string) string {
		return d.Query(`SELECT attname, format_type(atttypid, atttypmod), attnotnull, attidentity, attgenerated, replace(replace(pg_get_expr(adbin, adrelid), '` + schema + `.', ''), 'app.', '')
			FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
			WHERE attrelid = '` + schema + `."Odd ""t"""'::regclass AND attnum > 0 ORDER BY attnum`)
	}
	want, rows := describe("app"), d.Query(`SELECT row_to_json(t) FROM app."Odd ""t""" t ORDER BY b`)
	d.wantRefused(restore.Options{Path: path, Create: true, Table: d.Name(`other."Odd ""t"""`)}, "no such schema", `CREATE SCHEMA "other"`)
	d.Exec("CREATE SCHEMA other")
	res := d.restore(restore.Options{Path: path, Create: true, Table: d.Name(`other."Odd ""t"""`)})
	if got := describe("other"); got != want {
		t.Errorf("made\n%s\nof\n%s", got, want)
	}
	if got := d.Query(`SELECT row_to_json(t) FROM other."Odd ""t""" t ORDER BY b`); got != rows {
		t.Errorf("restored\n%s\nof\n%s", got, rows)
	}
	if fmt.Sprint(res.Sequences) != `[{other."Odd ""t""_b_seq" 10} {other."Odd ""t""_h_seq" 10}]` {
		t.Errorf("the sequences are %v", res.Sequences)
	}
	d.Exec("DROP SCHEMA app CASCADE; DROP SCHEMA other CASCADE; CREATE SCHEMA app")
	res = d.restore(restore.Options{Path: path, Create: true})
	if !strings.Contains(strings.Join(res.Notes, "\n"), `column "e" is created without its default, app.made()`) {
		t.Errorf("the notes are %q", res.Notes)
	}
	if d.Conn.PgConn().ParameterStatus("server_version") >= "18" {
		d.Exec(`CREATE TABLE app.virtual (id int PRIMARY KEY, twice int GENERATED ALWAYS AS (id * 2) VIRTUAL); INSERT INTO app.virtual VALUES (4)`)
		path = d.Export("app.virtual")
		d.Exec("DROP TABLE app.virtual")
		d.restore(restore.Options{Path: path, Create: true})
		if got := d.Query("SELECT twice, attgenerated FROM app.virtual, pg_attribute WHERE attrelid = 'app.virtual'::regclass AND attname = 'twice'"); got != "8|v" {
			t.Errorf("the virtual column is %s", got)
		}
	}
	d.Exec(`CREATE TYPE mood AS ENUM ('sad'); CREATE TABLE moods (id int PRIMARY KEY, m mood)`)
	path = d.Export("moods")
	d.Exec("DROP TABLE moods; DROP TYPE mood")
	d.wantRefused(restore.Options{Path: path, Create: true}, "lacks a type", "integer, mood", "CREATE TYPE")
}

func TestEmptyFile(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(3)
	path := d.WriteFile("[]\n")
	d.restore(restore.Options{Path: path})
	res := d.restore(restore.Options{Path: path, DeleteExtra: true})
	if res.Deleted.Rows != 3 || d.Query("SELECT count(*) FROM votes") != "0" {
		t.Errorf("the result is %+v", res)
	}
}

func TestPartitions(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE p (id int, at date, v text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
		CREATE TABLE p1 PARTITION OF p FOR VALUES FROM ('2025-01-01') TO ('2026-01-01');
		CREATE TABLE p2 PARTITION OF p FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
		INSERT INTO p SELECT i, '2025-06-01'::date + i, 'x' FROM generate_series(1, 400) i`)
	path := d.Export("p")
	d.Exec("CREATE TABLE kept AS TABLE p; DELETE FROM p WHERE id % 2 = 0; UPDATE p SET v = 'y' WHERE id = 301")
	res := d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite})
	if res.Inserted.Rows != 200 || res.Overwritten.Rows != 1 {
		t.Errorf("the result is %+v", res)
	}
	d.WantSameRows("kept", "p", "id")
	d.Exec("TRUNCATE p; DROP TABLE p2")
	d.wantRefused(restore.Options{Path: path}, "(id 214, at \"2026-01-01\")", "no partition")
}
