package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capture/store/manifest"
)

// keepState adds a kept state to dir: a compressed copy of dir's feedback.json, and its manifest. stamp is the time of the
// state. If loss is not nil, the manifest and the file names mark the state as the one before this loss.
func keepState(t *testing.T, dir, stamp string, loss *manifest.Loss) (path string) {
	t.Helper()
	path = filepath.Join(dir, "feedback.json")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Read(path)
	if err != nil {
		t.Fatal(err)
	}
	stem := filepath.Join(dir, "feedback-"+stamp)
	m.Kept = &manifest.Kept{Loss: loss}
	if loss != nil {
		stem += "-loss"
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for suffix, content := range map[string][]byte{".json.gz": zipped.Bytes(), ".manifest.json": manifest} {
		if err := os.WriteFile(stem+suffix, content, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	return stem + ".json.gz"
}

func listHistory(t *testing.T, dir string) []historyState {
	t.Helper()
	got := run(t, dir, nil, "history", "--json")
	var h history
	if err := json.Unmarshal([]byte(got.stdout), &h); err != nil || got.code != exitDone || got.stderr != "" || h.States == nil {
		t.Fatalf("%+v, %v", got, err)
	}
	return h.States
}

// wantAll checks that text contains each of the parts.
func wantAll(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("%q is missing in:\n%s", part, text)
		}
	}
}

func TestHistoryCommand(t *testing.T) {
	t.Parallel()
	url, dir := exported(t, 20)
	folder := filepath.Join(dir, "data/fallback")
	got := run(t, dir, nil, "history")
	if got.code != exitDone || got.stdout != "there are no kept states of data/fallback/feedback.json\n" {
		t.Errorf("without kept states: %+v", got)
	}
	if states := listHistory(t, dir); len(states) != 0 {
		t.Errorf("without kept states: %v", states)
	}
	keepState(t, folder, "20261123T150000Z", nil)
	found := time.Date(2026, 11, 23, 16, 30, 0, 0, time.UTC)
	lossPath := keepState(t, folder, "20261123T160000Z", &manifest.Loss{Found: found, RowsBefore: 20, RowsAfter: 1, RowsLost: 19})
	keepState(t, folder, "20261123T170000Z", nil)

	got = run(t, dir, nil, "history")
	if got.code != exitDone || got.stderr != "" || strings.Index(got.stdout, "17:00:00") > strings.Index(got.stdout, "15:00:00") {
		t.Errorf("not newest first: %+v", got)
	}
	wantAll(t, got.stdout, "2026-11-23 15:00:00 UTC  export", "20 rows", "data/fallback/feedback-20261123T150000Z.json.gz", "2026-11-23 16:00:00 UTC  loss",
		"the table went from 20 rows to 1", "capture restore --on-conflict skip data/fallback/feedback-20261123T160000Z-loss.json.gz", "capture history --ack", "3 kept states take ")
	var raw struct{ States []map[string]any }
	if err := json.Unmarshal([]byte(run(t, dir, nil, "history", "--json").stdout), &raw); err != nil || len(raw.States) != 3 {
		t.Fatalf("%v, %v", raw, err)
	}
	first := raw.States[0]
	if len(first) != 6 || first["time"] != "2026-11-23T17:00:00Z" || first["reason"] != "export" || first["rows"] != 20.0 || first["bytes"] == 0.0 ||
		len(first["sha256"].(string)) != 64 || first["where"] != "data/fallback/feedback-20261123T170000Z.json.gz" {
		t.Errorf("the newest state is %v", first)
	}

	// A restore of the state before the loss brings the lost rows back, and newer rows stay.
	sql(t, url, "DELETE FROM votes WHERE vote_id < 20", "INSERT INTO votes (comment) VALUES ('new')")
	env := []string{"DATABASE_URL=" + url}
	got = run(t, dir, env, "restore", "--on-conflict=skip", "--json", lossPath)
	if got.code != exitDone || !strings.Contains(got.stdout, `"inserted":{"rows":19`) {
		t.Errorf("restore of the state before a loss: %+v", got)
	}
	if got = run(t, dir, env, "verify", "--json", lossPath); !strings.Contains(got.stdout, `"table_rows":21`) || !strings.Contains(got.stdout, `"missing":{"rows":1`) {
		t.Errorf("after the restore: %+v", got)
	}

	for range 2 {
		got = run(t, dir, nil, "history", "--ack")
		if got.code != exitDone {
			t.Errorf("--ack: %+v", got)
		}
	}
	if got.stdout != "there is no loss to acknowledge\n" {
		t.Errorf("the second --ack: %+v", got)
	}
	if states := listHistory(t, dir); !states[1].Acknowledged || states[0].Acknowledged || states[1].Loss == "" {
		t.Errorf("after --ack: %+v", states)
	}
	wantAll(t, run(t, dir, nil, "history").stdout, "the table went from 20 rows to 1; acknowledged\n")
	mark := strings.TrimSuffix(lossPath, ".json.gz") + ".acknowledged"
	if err := os.WriteFile(mark, []byte("the rows are back\n"), 0o640); err != nil { // the daemon writes this file when the rows are back
		t.Fatal(err)
	}
	wantAll(t, run(t, dir, nil, "history").stdout, "the table went from 20 rows to 1; over: the rows are back\n")

	// Only the state before the earlier loss has all good values. The commands restore it last, so that its values stay.
	ruined := &manifest.Loss{Found: found, RowsBefore: 20, RowsAfter: 20, RowsChanged: 20, Column: "comment"}
	keepState(t, folder, "20261124T100000Z", ruined)
	keepState(t, folder, "20261124T110000Z", ruined)
	command := "capture restore --on-conflict overwrite data/fallback/feedback-20261124T110000Z-loss.json.gz && " +
		"capture restore --on-conflict overwrite data/fallback/feedback-20261124T100000Z-loss.json.gz"
	if got := run(t, dir, nil, "history"); strings.Count(got.stdout, command) != 1 || strings.Count(got.stdout, "history --ack") != 1 ||
		strings.Count(got.stdout, "  bring the rows back: "+command+"\n  or end the alert, if all losses were meant or are repaired: capture history --ack --output data/fallback/feedback.json\n") != 1 ||
		strings.Count(got.stdout, "  the commands above restore this state, too\n") != 1 {
		t.Errorf("two losses of values: %+v", got)
	}
	runPlain(t, dir, env, "snapshot")
	if got := run(t, dir, nil, "verify"); strings.Count(got.stderr, command) != 1 || !strings.Contains(got.stderr, "To bring rows back: "+command+" – or, ") ||
		!strings.Contains(got.stderr, "The commands above restore this state, too\n") {
		t.Errorf("two losses of values: %+v", got)
	}
	got = run(t, dir, nil, "history", "--ack", "--drop=all")
	if got.code != exitUsage {
		t.Errorf("--ack with --drop: %+v", got)
	}
}

func TestHistoryDropsStates(t *testing.T) {
	t.Parallel()
	_, dir := exported(t, 20)
	folder := filepath.Join(dir, "data/fallback")
	for _, stamp := range []string{"20261123T150000Z", "20261123T160000Z", "20261123T170000Z"} {
		keepState(t, folder, stamp, nil)
	}
	where := "data/fallback/feedback-20261123T160000Z.json.gz"
	got := run(t, dir, nil, "history", "--drop", where)
	if got.code != exitFailed || !strings.Contains(got.stderr, "--yes") || len(listHistory(t, dir)) != 3 {
		t.Errorf("without --yes: %+v", got)
	}
	for _, wrong := range []string{"data/fallback/feedback.json", "nowhere.json", "feedback-20261123T160000Z.json.gz"} {
		got = run(t, dir, nil, "history", "--yes", "--drop", wrong)
		if got.code != exitFailed || !strings.Contains(got.stderr, "not a kept state") || len(listHistory(t, dir)) != 3 {
			t.Errorf("--drop %s: %+v", wrong, got)
		}
	}
	got = run(t, dir, nil, "history", "--yes", "--drop", filepath.Join(dir, where))
	if got.code != exitDone || !strings.Contains(got.stdout, "deleted "+where) {
		t.Errorf("one: %+v", got)
	}
	if states := listHistory(t, dir); len(states) != 2 || states[0].Where == where || states[1].Where == where {
		t.Errorf("after one: %+v", states)
	}
	got = run(t, dir, nil, "history", "--yes", "--drop", "all")
	if got.code != exitDone || len(listHistory(t, dir)) != 0 {
		t.Errorf("all: %+v", got)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.Contains(e.Name(), "2026") {
			t.Errorf("%s is left", e.Name())
		}
	}
	if got = run(t, dir, nil, "verify"); got.code != exitDone {
		t.Errorf("the file after the drop: %+v", got)
	}
}

func TestReadingStateOfTime(t *testing.T) {
	t.Parallel()
	url, dir := exported(t, 20)
	env := []string{"DATABASE_URL=" + url}
	if got := runPlain(t, dir, nil, "verify", "--at=1h"); got.code != exitFailed || !strings.Contains(got.stderr, "there are no kept states of data/fallback/feedback.json") {
		t.Errorf("without kept states: %+v", got)
	}
	folder := filepath.Join(dir, "data/fallback")
	keepState(t, folder, "20261022T150000Z", nil)
	keepState(t, folder, "20261023T150000Z", nil)
	for at, want := range map[string]string{
		"2026-10-22T15:00:00Z":      "20261022T150000Z",
		"2026-10-23T16:59:59+02:00": "20261022T150000Z",
		"2026-10-23T17:00:00+02:00": "20261023T150000Z",
		"2026-10-23":                "20261022T150000Z",
		"2026-10-24":                "20261023T150000Z",
		"2026-10-23 14:59":          "20261022T150000Z",
		"2026-10-23 15:00":          "20261023T150000Z",
	} {
		got := runPlain(t, dir, nil, "verify", "--json", "--at", at)
		if want = "feedback-" + want + ".json.gz"; got.code != exitDone || !strings.Contains(got.stdout, want) || !strings.Contains(got.stderr, want) {
			t.Errorf("--at %q reads another than %s: %+v", at, want, got)
		}
	}
	got := runPlain(t, dir, nil, "verify", "--at=2026-10-22T14:59:59Z")
	if got.code != exitFailed {
		t.Errorf("before the oldest: %+v", got)
	}
	wantAll(t, got.stderr, "2026-10-22 14:59:59 UTC or earlier", "oldest is from 2026-10-22 15:00:00 UTC", "newest from 2026-10-23 15:00:00 UTC")
	for _, bad := range []string{"yesterday", "-2h", "2026-13-01", "24:00", "3w5"} {
		if got := runPlain(t, dir, nil, "verify", "--at="+bad); got.code != exitUsage || !strings.Contains(got.stderr, "2026-11-24") {
			t.Errorf("--at %s: %+v", bad, got)
		}
	}
	if got := runPlain(t, dir, nil, "verify", "--at=1h", "-"); got.code != exitUsage {
		t.Errorf("--at with standard input: %+v", got)
	}
	sql(t, url, "TRUNCATE votes")
	got = run(t, dir, env, "restore", "--at=2026-10-24")
	if got.code != exitDone || !strings.Contains(got.stdout, "inserted     20 rows") {
		t.Errorf("restore: %+v", got)
	}
	wantEqual(t, filepath.Join(folder, "feedback.json"), url)
}

func TestParseMoment(t *testing.T) {
	now := time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]time.Time{
		"2h": now.Add(-2 * time.Hour), "90m": now.Add(-90 * time.Minute), "3d": now.AddDate(0, 0, -3), "0s": now,
		"2026-11-24": now.Add(-12 * time.Hour), "2026-11-24 13:00:01": now.Add(time.Hour + time.Second),
	} {
		if got, ok := parseMoment(text, now); !ok || !got.Equal(want) {
			t.Errorf("%q is %v, %v, not %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", "d", "-3d", "1.5d", "99999d", "2", "2w"} {
		if got, ok := parseMoment(text, now); ok {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestDoctorShowsKeptStates(t *testing.T) {
	t.Parallel()
	url, dir := exported(t, 20)
	env := []string{"DATABASE_URL=" + url}
	got := run(t, dir, env, "doctor")
	wantAll(t, got.stdout, "kept states", "none yet", "file system", "writ")
	folder := filepath.Join(dir, "data/fallback")
	keepState(t, folder, time.Now().UTC().Add(-76*time.Hour).Format("20060102T150405Z"), nil)
	keepState(t, folder, time.Now().UTC().Format("20060102T150405Z"), nil)
	if got := run(t, dir, env, "doctor"); !strings.Contains(got.stdout, "2 kept states take ") || !strings.Contains(got.stdout, "the oldest is 3 d 4 h old") {
		t.Errorf("with kept states: %+v", got)
	}
}
