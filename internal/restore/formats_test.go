package restore_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/internal/restore"
	"capture/internal/statefile/statefiletest"
	"capture/internal/verify"
)

// TestFilesOfOtherPrograms checks that restores of files that other programs wrote result in the same rows as a restore of
// votes.json. testdata/make.sh makes these files from the votes.
func TestFilesOfOtherPrograms(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(statefiletest.VotesDDL)
	d.restore(restore.Options{Path: filepath.Join("testdata", "votes.json")})
	d.Exec("ALTER TABLE votes RENAME TO original")
	files, err := os.ReadDir("testdata")
	if err != nil {
		t.Fatal(err)
	}
	restored := 0
	for _, file := range files {
		name := file.Name()
		o := restore.Options{Path: filepath.Join("testdata", name), MissingNull: name == "spark.json"}
		want, precision := "3", "milliseconds"
		switch name {
		case "votes.json", "make.sh":
			continue
		case "pandas-columns.json":
			d.Exec("DROP TABLE IF EXISTS votes; " + statefiletest.VotesDDL)
			d.wantRefused(o, `orient="records"`)
			continue
		case "powershell-one.json":
			want = "1"
		case "pandas-float.json":
			precision = "second"
		}
		d.Exec("DROP TABLE IF EXISTS votes; " + statefiletest.VotesDDL)
		res := d.restore(o)
		restored++
		same := d.Query(`SELECT count(*) FROM votes v JOIN original o USING (vote_id)
			WHERE (v.user_query, v.bot_response, v.evaluation_json, v.feedback_tags, v.comment, v.citations, date_trunc('` + precision + `', v."timestamp"))
			IS NOT DISTINCT FROM (o.user_query, o.bot_response, o.evaluation_json, o.feedback_tags, o.comment, o.citations, date_trunc('` + precision + `', o."timestamp"))`)
		if same != want {
			t.Errorf("%s: %s of %s rows are the same", name, same, want)
		}
		if r := d.verify(verify.Options{Path: o.Path, Database: d.Config, MissingNull: o.MissingNull}); !r.OK {
			t.Errorf("%s: restored, it differs: %+v %+v", name, r, r.Difference)
		}
		noted := strings.Contains(strings.Join(res.Notes, " "), "seconds since 1970 (UTC)")
		if noted != (name == "pandas.json" || name == "pandas-float.json") {
			t.Errorf("%s: the notes are %q", name, res.Notes)
		}
	}
	if restored < 16 {
		t.Errorf("only %d files were restored", restored)
	}
}

// TestMissingMembers checks restores of rows that lack some columns. The missing values become NULL only if the user asks
// for this, and never in NOT NULL and generated columns.
func TestMissingMembers(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	const ddl = `DROP TABLE IF EXISTS t; CREATE TABLE t (id int PRIMARY KEY, a text DEFAULT 'default', "b ""q""" int, c text NOT NULL DEFAULT 'c', g int GENERATED ALWAYS AS (id + 1) STORED)`
	const rows = "{\"id\":1}\n{\"id\":2,\"a\":\"x\"}\n{\"b \\\"q\\\"\":3,\"id\":3}\n{\"id\":4,\"b \\\"q\\\"\":4,\"a\":null}\n"
	path := d.WriteFile(rows)
	d.Exec(ddl)
	d.wantRefused(restore.Options{Table: d.Name("t"), Path: path}, `line 2: its columns are not those of the first row: it has "a", too`, "--missing null")
	more := d.WriteFile("{\"id\":1,\"a\":\"x\"}\n{\"id\":2}\n")
	d.wantRefused(restore.Options{Table: d.Name("t"), Path: more}, `line 2: its columns are not those of the first row: it lacks "a"; if`)
	for _, o := range []restore.Options{{Table: d.Name("t"), Path: path, MissingNull: true}, {Table: d.Name("t"), Path: path, MissingNull: true, OnConflict: restore.Overwrite, DeleteExtra: true}} {
		if o.OnConflict != "" {
			d.Exec("UPDATE t SET a = 'other', \"b \"\"q\"\"\" = 9, c = 'kept' WHERE id < 4")
		}
		d.restore(o)
		want := "1|||c|2\n2|x||c|3\n3||3|c|4\n4||4|c|5"
		if o.OnConflict != "" {
			want = strings.ReplaceAll(want, "|c|", "|kept|")
			want = strings.Replace(want, "4||4|kept", "4||4|c", 1)
		}
		if got := d.Query("SELECT * FROM t ORDER BY 1"); got != want {
			t.Errorf("%+v: the rows are\n%s\nwant\n%s", o, got, want)
		}
	}
	d.Exec(ddl)
	some := d.WriteFile("{\"id\":1,\"c\":\"x\"}\n{\"id\":2}\n")
	d.wantRefused(restore.Options{Table: d.Name("t"), Path: some, MissingNull: true}, `line 2: its columns are not those of the first row: it lacks "c"`)
}

// TestTimesAsNumbers checks that a restore accepts numbers as times only if all numbers of a column can have the same unit.
func TestTimesAsNumbers(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE t (id int PRIMARY KEY, at timestamptz, day date)`)
	d.restore(restore.Options{Table: d.Name("t"), Path: d.WriteFile(`[{"id":1.0,"at":1750179480.5,"day":1750118400},{"id":2,"at":0,"day":0},{"id":3,"at":null,"day":"2025-06-17"}]`)})
	if got := d.Query("SELECT id, at AT TIME ZONE 'UTC', day FROM t ORDER BY 1"); got != "1|2025-06-17 16:58:00.5|2025-06-17\n2|1970-01-01 00:00:00|1970-01-01\n3||2025-06-17" {
		t.Errorf("the rows are\n%s", got)
	}
	for content, want := range map[string]string{
		"{\"id\":4,\"at\":1750179480000}\n{\"id\":5,\"at\":13046400000}":  `line 2 (id 5): column "at": it seems to be a number of seconds since 1970, and earlier ones are of milliseconds`,
		"{\"id\":4,\"day\":1750118400000}\n{\"id\":5,\"day\":1750118401}": `line 2 (id 5): column "day" (date) does not take the value: a number that is a time since 1970, but not the start of a day`,
		"{\"id\":4.5}": `line 1 (id 4.5)`,
	} {
		d.wantRefused(restore.Options{Path: d.WriteFile(content), Table: d.Name("t")}, want)
	}
}

// TestRowsInAMember checks that a restore refuses a file whose rows are not at its top level. The error says
// where in the file the rows are.
func TestRowsInAMember(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE t (id int PRIMARY KEY, c jsonb)`)
	for content, want := range map[string]string{
		`{"value": [ {"id":1}, {"id":2} ], "Count": 2}`: `its rows are in the member "value" of an object`,
		`{"data":[{"id":1}]}`:                           `jq '.["data"]' FILE`,
		`{"id":{"0":1,"1":2},"c":{"0":null,"1":2}}`:     `orient="records"`,
	} {
		d.wantRefused(restore.Options{Path: d.WriteFile(content), Table: d.Name("t")}, want)
	}
	d.restore(restore.Options{Table: d.Name("t"), Path: d.WriteFile(`{"id":1,"c":[{"id":2}]}`)}) // objects within a column are not rows
}
