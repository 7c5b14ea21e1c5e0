package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"capture/capture"
	"capture/store"
	"capture/store/manifest"
)

var snapshotLine = regexp.MustCompile(`^feedback\.json: ([0-9,]+) rows?, [0-9.]+ (bytes|[kMG]B)(, LSN [0-9A-F]+/[0-9A-F]+)?, [0-9.]+ m?s\n$`)

func TestSnapshotWithDaemon(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 5)
	d := start(t, url, "--flush-delay=1h")
	d.ready()
	for range 5 {
		sql(t, url, `INSERT INTO votes (user_query) VALUES ('barrier')`)
		got := run(t, d.dir, nil, "snapshot") // the command needs no database, because the daemon reads the table
		if got.code != exitDone || got.stderr != "" || !snapshotLine.MatchString(got.stdout) {
			t.Fatalf("%+v", got)
		}
		wantEqual(t, d.path, url)
	}
	got := run(t, d.dir, nil, "snapshot", "--json")
	var flushed capture.SnapshotResult
	if err := json.Unmarshal([]byte(got.stdout), &flushed); err != nil || flushed.Rows != 10 || flushed.LSN == "" || len(flushed.SHA256) != 64 {
		t.Errorf("%+v: %v", got, err)
	}
}

func TestSnapshotWithToken(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 1)
	dir := t.TempDir()
	token := filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("open-sesame\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	d := startIn(t, dir, []string{"DATABASE_URL=" + url, "CAPTURE_TOKEN_FILE=" + token}, "run", "--listen=127.0.0.1:0")
	d.ready()
	got := run(t, dir, nil, "snapshot")
	if got.code != exitFailed || !strings.Contains(got.stderr, "--token-file") {
		t.Errorf("without the token: %+v", got)
	}
	got = run(t, dir, []string{"CAPTURE_TOKEN_FILE=" + token}, "snapshot")
	if got.code != exitDone || !snapshotLine.MatchString(got.stdout) {
		t.Errorf("with the token: %+v", got)
	}
	if got := run(t, dir, nil, "status"); got.code != exitDone {
		t.Errorf("status needs no token: %+v", got)
	}
	wantNowhere(t, d, "open-sesame")
}

func TestSnapshotDaemonWithoutDatabase(t *testing.T) {
	t.Parallel()
	d := start(t, "postgres://nobody@127.0.0.1:1/none")
	d.status(func(s capture.Status) bool { return s.Error != "" })
	got := run(t, d.dir, nil, "snapshot")
	if got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, "127.0.0.1:1") {
		t.Errorf("%+v", got)
	}
}

// TestSnapshotNamesRestoreCommand runs the command that `capture snapshot` prints after a loss. It tests a loss that
// overwrites values and a loss that deletes rows.
func TestSnapshotNamesRestoreCommand(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 60)
	dir, before := t.TempDir(), table(t, url)
	env := []string{"DATABASE_URL=" + url}
	snapshot := func() result {
		t.Helper()
		got := run(t, dir, env, "snapshot")
		if got.code != exitDone {
			t.Fatalf("%+v", got)
		}
		return got
	}
	for _, change := range []string{"UPDATE votes SET user_query = 'lost'", "DELETE FROM votes WHERE vote_id > 5"} {
		snapshot()
		sql(t, url, change)
		got := snapshot()
		_, commands, _ := strings.Cut(strings.TrimSpace(got.stderr), "To bring rows back: capture ")
		command, meant, _ := strings.Cut(commands, " – or, if ")
		_, _, ok := strings.Cut(meant, ": capture history --ack --output data/fallback/feedback.json")
		if !ok {
			t.Fatalf("after %s: %+v", change, got)
		}
		if got := run(t, dir, env, append(strings.Fields(command), "--yes")...); got.code != exitDone {
			t.Errorf("capture %s: %+v", command, got)
		}
		if now := table(t, url); now != before {
			t.Errorf("after capture %s the table has %d bytes, want %d", command, len(now), len(before))
		}
	}
}

// TestSnapshotNamesUnreadableState checks the message that `capture snapshot` prints after a loss if the state before the
// loss could not be read completely. capture does not compress such a state, so the message names the uncompressed file.
func TestSnapshotNamesUnreadableState(t *testing.T) {
	t.Parallel()
	url, dir := exported(t, 60)
	folder := filepath.Join(dir, "data/fallback")
	compressed := keepState(t, folder, "20261123T160000Z", &manifest.Loss{RowsBefore: 60, RowsLost: 60})
	stem := strings.TrimSuffix(compressed, ".json.gz")
	m, err := manifest.ReadAt(stem + ".manifest.json")
	if err != nil {
		t.Fatal(err)
	}
	m.Kept.Damaged = "it can't be read: input/output error"
	content, err := json.Marshal(m)
	if err := errors.Join(err, os.Remove(compressed), os.Link(filepath.Join(folder, "feedback.json"), stem+".json"), os.WriteFile(stem+".manifest.json", content, 0o640)); err != nil {
		t.Fatal(err)
	}
	sql(t, url, "TRUNCATE votes")
	got := run(t, dir, []string{"DATABASE_URL=" + url}, "snapshot")
	if want := "To bring rows back: data/fallback/" + filepath.Base(stem) + ".json is damaged"; got.code != exitDone || !strings.Contains(got.stderr, want) {
		t.Errorf("%+v", got)
	}
}

func TestSnapshotWithoutDaemon(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 1500)
	dir := t.TempDir()
	path := filepath.Join(dir, "data/fallback/feedback.json")
	env := []string{"DATABASE_URL=" + url}
	got := run(t, dir, env, "snapshot")
	match := snapshotLine.FindStringSubmatch(got.stdout)
	if got.code != exitDone || got.stderr != "" || match == nil || match[1] != "1,500" {
		t.Fatalf("%+v", got)
	}
	wantEqual(t, path, url)
	manifest, err := manifest.Read(path)
	if err != nil || manifest.Reason != store.ReasonExport || manifest.Rows != 1500 {
		t.Errorf("manifest %+v, %v", manifest, err)
	}

	// Standard output has the same content, and no file is written.
	elsewhere := t.TempDir()
	got = run(t, elsewhere, env, "snapshot", "--output=-")
	content, err := os.ReadFile(path)
	if err != nil || got.code != exitDone || got.stderr != "" || got.stdout != string(content) {
		t.Errorf("exit code %d, stderr %q, %d bytes of stdout, %d in the file (%v)", got.code, got.stderr, len(got.stdout), len(content), err)
	}
	if entries, err := os.ReadDir(elsewhere); err != nil || len(entries) != 0 {
		t.Errorf("it left %v behind (%v)", entries, err)
	}

	// With --format=jsonl, capture writes JSON lines to another file. `capture restore` accepts this file, too.
	got = run(t, dir, env, "snapshot", "--format=jsonl", "--output=out/votes.jsonl", "--json")
	var written capture.SnapshotResult
	if err := json.Unmarshal([]byte(got.stdout), &written); err != nil || got.code != exitDone || written.Rows != 1500 || written.Path != "out/votes.jsonl" {
		t.Errorf("%+v: %v", got, err)
	}
	lines, err := os.ReadFile(filepath.Join(dir, "out/votes.jsonl"))
	if err != nil || strings.Count(string(lines), "\n") != 1500 || int64(len(lines)) != written.Bytes {
		t.Errorf("%d lines: %v", strings.Count(string(lines), "\n"), err)
	}
	if got := run(t, elsewhere, env, "snapshot", "--format=jsonl", "--output=-"); got.code != exitDone || got.stdout != string(lines) {
		t.Errorf("to standard output: exit code %d, stderr %q, %d bytes", got.code, got.stderr, len(got.stdout))
	}
	for _, args := range [][]string{
		{"verify", "out/votes.jsonl"}, {"restore", "--create", "--table=copy", "out/votes.jsonl"}, {"verify", "--table=copy", "out/votes.jsonl"}, {"verify", "--table=copy"},
	} {
		if got := run(t, dir, env, args...); got.code != exitDone {
			t.Errorf("%s: %+v", args, got)
		}
	}
	if got := run(t, dir, env, "snapshot", "--format=jsonl"); got.code != exitUsage || !strings.Contains(got.stderr, "votes.jsonl") {
		t.Errorf("without --output: %+v", got)
	}
	wantEqual(t, path, url)

	// After a failure, the file is unchanged, and standard output is empty.
	for _, args := range []string{"snapshot --table=missing", "snapshot --table=missing --output=-"} {
		got = run(t, dir, env, strings.Fields(args)...)
		if got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, "missing") {
			t.Errorf("capture %s: %+v", args, got)
		}
	}
	wantEqual(t, path, url)
}
