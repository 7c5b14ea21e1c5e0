package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/internal/restore"
)

// exported creates a database of n votes, and a folder with its fallback file.
func exported(t *testing.T, n int) (url, dir string) {
	t.Helper()
	url, dir = votesDatabase(t, n), t.TempDir()
	if got := runPlain(t, dir, []string{"DATABASE_URL=" + url}, "snapshot"); got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	return url, dir
}

func TestRestoreCommand(t *testing.T) {
	t.Parallel()
	url, dir := exported(t, 20)
	path := filepath.Join(dir, "data/fallback/feedback.json")
	env := []string{"DATABASE_URL=" + url}
	sql(t, url, "DROP TABLE votes")
	got := run(t, dir, env, "restore")
	if got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, "--create") {
		t.Errorf("without --create: %+v", got)
	}
	got = run(t, dir, env, "restore", "--create", "--json")
	var result restore.Result
	if err := json.Unmarshal([]byte(got.stdout), &result); err != nil || got.code != exitDone || got.stderr != "" ||
		!result.Created || !result.Checked || result.Inserted.Rows != 20 || result.Table != "public.votes" {
		t.Errorf("with --create: %+v, %v", got, err)
	}
	wantEqual(t, path, url)

	sql(t, url, "UPDATE votes SET comment = 'changed' WHERE vote_id = 3", "INSERT INTO votes (comment) VALUES ('extra')")
	got = run(t, dir, env, "restore", "--on-conflict=overwrite", "--delete-extra")
	if got.code != exitFailed || !strings.Contains(got.stderr, "21 rows") || !strings.Contains(got.stderr, "--yes") {
		t.Errorf("without --yes: %+v", got)
	}
	got = run(t, dir, env, "restore", "--on-conflict=overwrite", "--delete-extra", "--yes", path)
	for _, want := range []string{"overwritten  1 row: 3", "unchanged    19 rows", "deleted      1 row: 21"} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("stdout lacks %q: %+v", want, got)
		}
	}
	wantEqual(t, path, url)
	got = run(t, dir, append(env, "CAPTURE_OUTPUT="+path, "CAPTURE_TABLE=elsewhere"), "restore")
	if got.code != exitFailed || !strings.Contains(got.stderr, "table elsewhere does not exist") {
		t.Errorf("by the environment: %+v", got)
	}
	for args, want := range map[string]string{"--on-conflict=replace": `"replace" is not one of fail, skip, overwrite`, "--table=a.b.c": "a.b.c", "a b": "unexpected argument"} {
		if got := run(t, dir, env, append([]string{"restore"}, strings.Fields(args)...)...); got.code != exitUsage || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: %+v", args, got)
		}
	}
	if got := run(t, dir, env, "restore", "nowhere.json"); got.code != exitFailed || !strings.Contains(got.stderr, "no such file") {
		t.Errorf("without a file: %+v", got)
	}
}

func TestRestoreFromStandardInput(t *testing.T) {
	t.Parallel()
	url, dir := exported(t, 20)
	path := filepath.Join(dir, "data/fallback/feedback.json")
	sql(t, url, "TRUNCATE votes")
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := prepare(t.Context(), dir, []string{"DATABASE_URL=" + url}, "restore", "-")
	cmd.Stdin = file
	if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "no manifest to check it against") {
		t.Errorf("%s, %v", out, err)
	}
	wantEqual(t, path, url)
}
