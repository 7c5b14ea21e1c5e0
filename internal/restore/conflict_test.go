package restore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"capture/internal/restore"
	"capture/internal/statefile/statefiletest"
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
