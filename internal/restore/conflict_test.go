package restore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"capture/internal/restore"
	"capture/internal/statefile/statefiletest"
	"capture/internal/verify"
)

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

// TestKeysOfSeveralCollations checks that a restore refuses a file with two keys that the table's collations treat as equal.
// The key's columns have different collations, so no single collation can compare the whole key.
func TestKeysOfSeveralCollations(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
		CREATE TABLE source (a text COLLATE "C", b text, v text, PRIMARY KEY (a, b)); INSERT INTO source VALUES ('k', 'x', '1'), ('k', 'X', '2'), ('K', 'x', '3')`)
	path := d.Export("source")
	for _, key := range []string{`a text COLLATE "C", b text COLLATE ci`, `a text COLLATE ci, b text COLLATE "C"`} {
		d.Exec("CREATE TABLE t (" + key + ", v text, PRIMARY KEY (a, b)); INSERT INTO t VALUES ('other', 'x', 'kept')")
		twice, lines := "k, X twice", "lines 3 and 4"
		if strings.HasPrefix(key, "a text COLLATE ci") {
			twice, lines = "K, x twice", "lines 2 and 4"
		}
		for _, onConflict := range []restore.OnConflict{restore.Skip, restore.Overwrite} {
			d.wantRefused(restore.Options{Path: path, Table: d.Name("t"), OnConflict: onConflict}, "the file has the key "+twice, lines)
		}
		if got := d.Query("SELECT * FROM t"); got != "other|x|kept" {
			t.Errorf("%s: it left %s", key, got)
		}
		d.Exec("DROP TABLE t")
	}
}

// TestAssumedKeyComparesBytes checks that keys that differ only in case stay different in a table without a key of its own.
// The columns of the manifest's key identify the rows, and one of these columns has a collation that ignores case. The
// values are compared as bytes, because the table has no index that treats them as equal.
func TestAssumedKeyComparesBytes(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
		CREATE TABLE source (a text COLLATE "C", b text, v text, PRIMARY KEY (a, b)); INSERT INTO source VALUES ('k', 'x', '1'), ('k', 'X', '2'), ('K', 'x', '3');
		CREATE TABLE t (a text COLLATE "C", b text COLLATE ci, v text); CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
		CREATE TRIGGER keep BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION keep()`) // the trigger makes the restore use the staging table
	path := d.Export("source")
	if res := d.restore(restore.Options{Path: path, Table: d.Name("t")}); res.Inserted.Rows != 3 {
		t.Errorf("%+v", res)
	}
	d.wantEqual(path, "t")
	d.Exec("UPDATE t SET v = 'changed' WHERE v = '2'")
	want := "[{(…,…) [v]}]" // the key may be forged, so its texts are hidden
	if diff := d.verify(verify.Options{Path: path, Database: d.Config, Table: d.Name("t")}).Difference; fmt.Sprint(diff.Different.First) != want || diff.Missing.Rows+diff.Extra.Rows != 0 {
		t.Errorf("%+v, want %s", diff, want)
	}
}
