package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/capture"
	"capture/store/manifest"
)

// TestSnapshotNamesRowsThatDoNotFit checks that the commands name a vote that does not fit into memory. The test writes the
// file with and without a daemon, to the disk and to standard output, and restores it.
func TestSnapshotNamesRowsThatDoNotFit(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 20)
	sql(t, url, "UPDATE votes SET comment = repeat('secret ', 1000000) WHERE vote_id = 7")
	const reason = "that are not in the file, since they do not fit into memory: 7"
	dir := t.TempDir()
	path := filepath.Join(dir, "data/fallback/feedback.json")
	env := []string{"DATABASE_URL=" + url, "GOMEMLIMIT=64MiB"}
	check := func(what string, got result) {
		t.Helper()
		if got.code != exitFailed || !strings.Contains(got.stderr, reason) || strings.Contains(got.stderr, "secret") {
			t.Errorf("%s: exit code %d, stderr %q", what, got.code, got.stderr)
		}
	}
	checkManifest := func(what string) {
		t.Helper()
		m, err := manifest.Read(path)
		if err != nil || m.Rows != 19 || m.Omitted == nil || m.Omitted.Rows != 1 || len(m.Omitted.Keys) != 1 || m.Omitted.Keys[0] != "7" {
			t.Errorf("%s: the manifest has %d rows and omits %+v; %v", what, m.Rows, m.Omitted, err)
		}
	}
	check("without a daemon", run(t, dir, env, "snapshot"))
	checkManifest("without a daemon")
	got := run(t, dir, env, "snapshot", "--output=-")
	check("to standard output", got)
	if content, err := os.ReadFile(path); err != nil || got.stdout != string(content) {
		t.Errorf("standard output has %d bytes, and the file %d (%v)", len(got.stdout), len(content), err)
	}

	got = run(t, dir, env, "restore", "--delete-extra", "--yes")
	if got.code != exitFailed || !strings.Contains(got.stderr, "the file lacks 1 row of its table: 7") {
		t.Errorf("restore --delete-extra: %+v", got)
	}
	if got = run(t, dir, env, "restore", "--on-conflict=overwrite", "--yes"); got.code != exitDone || !strings.Contains(got.stdout, "note         the file lacks 1 row of its table: 7; they did not fit") {
		t.Errorf("restore: %+v", got)
	}

	d := startIn(t, dir, append(env, "CAPTURE_MEMORY=64MB"), "run", "--listen=127.0.0.1:0")
	s := d.status(func(s capture.Status) bool { return s.State == "following" && s.File.UpToDate && s.Omitted > 0 })
	if s.Ready {
		t.Error("it is ready without a row")
	}
	got = run(t, dir, nil, "snapshot", "--json")
	check("with a daemon", got)
	var written capture.SnapshotResult
	if err := json.Unmarshal([]byte(got.stdout), &written); err != nil || written.Omitted == nil || written.Omitted.Rows != 1 {
		t.Errorf("the result is %q; %v", got.stdout, err)
	}
	checkManifest("with a daemon")
	if got = run(t, dir, nil, "status"); got.code == exitDone || !strings.Contains(got.stdout, "1 rows do not fit into memory and are not in feedback.json: 7 (about 6 MB)") {
		t.Errorf("capture status: %+v", got)
	}
	sql(t, url, "UPDATE votes SET comment = 'short' WHERE vote_id = 7")
	d.ready()
	if got = run(t, dir, nil, "snapshot"); got.code != exitDone {
		t.Errorf("after the row has become small: %+v", got)
	}
	wantEqual(t, path, url)
}
