package main

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"capture/internal/restore"
)

// queryText returns the only value of a query, as text.
func queryText(t *testing.T, url, query string) (text string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), "SELECT ("+query+")::text").Scan(&text); err != nil {
		t.Fatal(err)
	}
	return text
}

// TestRestoreReportsOutcome checks that restore reports the effects of triggers and foreign keys, as text and as JSON.
func TestRestoreReportsOutcome(t *testing.T) {
	t.Parallel()
	url, dir := exported(t, 20)
	env := []string{"DATABASE_URL=" + url}
	sql(t, url, "CREATE TABLE child (vote int REFERENCES votes ON DELETE CASCADE)",
		"INSERT INTO votes (vote_id, comment) VALUES (100, 'extra')", "INSERT INTO child VALUES (100), (100), (3)",
		`CREATE FUNCTION half() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.vote_id % 2 = 0 THEN RETURN NULL; END IF; RETURN NEW; END'`,
		"CREATE TRIGGER half BEFORE INSERT ON votes FOR EACH ROW EXECUTE FUNCTION half()", "DELETE FROM votes WHERE vote_id BETWEEN 10 AND 15")
	for _, dryRun := range []string{"--dry-run", "--yes"} {
		got := run(t, dir, env, "restore", "--on-conflict=overwrite", "--delete-extra", dryRun)
		if got.code != exitFailed || !strings.Contains(got.stderr, `trigger "half" of table public.votes (function public.half) left out 3 rows of 20`) || !strings.Contains(got.stderr, "--disable-triggers") {
			t.Errorf("%s: %+v", dryRun, got)
		}
	}
	got := run(t, dir, env, "restore", "--on-conflict=skip", "--delete-extra", "--dry-run")
	for _, want := range []string{"inserted     3 rows: 11; 13; 15", "left out     3 rows: 10; 12; 14", `by           trigger "half"`, "other table  public.child: 2 rows deleted", "deleted      1 row: 100", "nothing has changed"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("stdout lacks %q: %+v", want, got)
		}
	}
	got = run(t, dir, env, "restore", "--on-conflict=skip", "--delete-extra", "--yes", "--json")
	var result restore.Result
	if err := json.Unmarshal([]byte(got.stdout), &result); err != nil || result.LeftOut.Rows != 3 || result.Inserted.Rows != 3 || fmt.Sprint(result.Others) != "[{public.child 0 0 2}]" {
		t.Errorf("%+v, %v", got, err)
	}
	if got := run(t, dir, env, "restore", "--on-conflict=overwrite", "--delete-extra", "--yes", "--disable-triggers"); got.code != exitDone {
		t.Errorf("%+v", got)
	}
	wantEqual(t, filepath.Join(dir, "data/fallback/feedback.json"), url)
}

// TestKilledRestoreLeavesNothing kills restores that wait for a slow trigger. Afterwards, the table is unchanged, and the
// tables that restore created are gone.
func TestKilledRestoreLeavesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("kills many restores")
	}
	t.Parallel()
	url, dir := exported(t, 2000)
	env := []string{"DATABASE_URL=" + url}
	sql(t, url, "CREATE TABLE before AS TABLE votes", "DELETE FROM votes WHERE vote_id < 1000", "TRUNCATE before", "INSERT INTO before SELECT * FROM votes",
		`CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END'`, "CREATE TRIGGER slow BEFORE INSERT ON votes FOR EACH ROW EXECUTE FUNCTION slow()")
	for _, signal := range []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGINT} {
		cmd := prepare(t.Context(), dir, env, "restore", "--on-conflict=skip")
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the trigger to hold the restore up", func() bool {
			return queryText(t, url, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'PgSleep'") != "0"
		})
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		if cmd.Wait() == nil {
			t.Errorf("%s: the restore ended well", signal)
		}
		eventually(t, "the end of the restore's session", func() bool {
			return queryText(t, url, "SELECT count(*) FROM pg_locks WHERE relation = 'votes'::regclass AND mode = 'ShareRowExclusiveLock'") == "0"
		})
		if got := queryText(t, url, "SELECT (SELECT count(*) FROM ((TABLE votes EXCEPT TABLE before) UNION ALL (TABLE before EXCEPT TABLE votes)) _) || ' ' || (SELECT count(*) FROM pg_class WHERE relname LIKE 'capture_restore%')"); got != "0 0" {
			t.Errorf("%s: rows that differ and tables that are left: %s", signal, got)
		}
	}
}
