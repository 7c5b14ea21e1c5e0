package restore_test

import (
	"strings"
	"testing"

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

func TestFileOfAnotherProgram(t *testing.T) {
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

func TestColumnsThatOneSideLacks(t *testing.T) {
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

func TestFileWithoutRows(t *testing.T) {
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

func TestPartitionedTable(t *testing.T) {
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
