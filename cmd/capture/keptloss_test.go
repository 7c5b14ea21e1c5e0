package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"capture/internal/pgserver"
	"capture/internal/restore"
	"capture/store/manifest"
)

// emptied exports a table of 60 rows, replaces all rows with one new row, and exports the table again. lossPath is the path
// of the kept state from before the loss, relative to dir.
func emptied(t *testing.T) (url, dir, lossPath string) {
	t.Helper()
	url, dir = exported(t, 60)
	_, lossPath = empty(t, url, dir)
	return url, dir, lossPath
}

// empty replaces all rows of the exported table with one new row, and exports the table again. It returns the result of the
// export, and the path of the kept state from before the loss, relative to dir.
func empty(t *testing.T, url, dir string) (written result, lossPath string) {
	t.Helper()
	sql(t, url, "TRUNCATE votes", "INSERT INTO votes (vote_id, comment) VALUES (100, 'after the loss')")
	written = runPlain(t, dir, []string{"DATABASE_URL=" + url}, "snapshot")
	found, err := filepath.Glob(filepath.Join(dir, "data/fallback/feedback-*-loss.json.gz"))
	if err != nil || len(found) != 1 || written.code != exitDone {
		t.Fatalf("%v, %v; %+v", found, err, written)
	}
	return written, filepath.Join("data/fallback", filepath.Base(found[0]))
}

// TestRestoreNamesKeptLoss checks the commands restore and verify after a TRUNCATE. Both accept feedback.json, which has
// lost rows, and print the command that brings the lost rows back. The printed command works, too.
func TestRestoreNamesKeptLoss(t *testing.T) {
	if testing.Short() {
		t.Skip("runs many commands")
	}
	t.Parallel()
	url, dir, lossPath := emptied(t)
	env := []string{"DATABASE_URL=" + pgserver.Database(t)}
	command := "restore --on-conflict skip " + lossPath
	for _, args := range []string{
		"restore --create --dry-run", "restore --create --json", "restore --on-conflict skip data/fallback/feedback.json",
		"verify", "verify --json", "verify data/fallback/feedback.json",
	} {
		got := runPlain(t, dir, env, strings.Fields(args)...)
		name, _, _ := strings.Cut(args, " ")
		if got.code != exitDone || strings.Count(got.stderr, "\n") != 1 || !strings.HasPrefix(got.stderr, "capture "+name+": data/fallback/feedback.json follows a loss that nobody has acknowledged") {
			t.Errorf("capture %s: %+v", args, got)
		}
		wantAll(t, got.stderr, "the table went from 60 rows to 1.", "To bring rows back: capture "+command+" – or, if it was meant: capture history --ack --output data/fallback/feedback.json\n")
	}
	got := runPlain(t, dir, env, strings.Fields(command)...)
	if got.code != exitDone || got.stderr != "" || !strings.Contains(got.stdout, "inserted     60 rows") {
		t.Errorf("capture %s: %+v", command, got)
	}

	path := filepath.Join(dir, "data/fallback/feedback.json")
	got = runPlain(t, dir, env, "verify", path) // the command in the note works in every folder
	wantAll(t, got.stderr, path+" follows", "capture restore --on-conflict skip "+filepath.Join(dir, lossPath)+" – or, ")
	got = runPlain(t, filepath.Dir(path), append(env, "CAPTURE_OUTPUT=feedback.json"), "restore", "--on-conflict=skip", "--json")
	wantAll(t, got.stderr, "capture restore: feedback.json follows", "capture restore --on-conflict skip "+filepath.Base(lossPath)+" – or, ")
	var result restore.Result
	if err := json.Unmarshal([]byte(got.stdout), &result); err != nil || got.code != exitDone || result.Skipped.Rows != 1 {
		t.Errorf("with --json: %+v, %v", got, err)
	}

	// There is no note about the loss if the kept state itself, another file or standard input is read.
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "data/fallback/votes.json"), content, 0o640); err != nil {
		t.Fatal(err)
	}
	for _, args := range []string{
		"verify " + lossPath, "restore --on-conflict skip --dry-run " + lossPath, "verify --at 0s", "restore --on-conflict skip --at 0s --dry-run",
		"verify data/fallback/votes.json", "verify -",
	} {
		cmd := prepare(t.Context(), dir, env, strings.Fields(args)...)
		cmd.Stdin = strings.NewReader(string(content))
		if got := finish(t, cmd); strings.Contains(got.stderr, "follows a loss") {
			t.Errorf("capture %s: %+v", args, got)
		}
	}

	if got := runPlain(t, t.TempDir(), nil, "history", "--ack", "--output", path); got.code != exitDone {
		t.Errorf("history --ack: %+v", got)
	}
	for _, args := range []string{"verify", "restore --on-conflict=skip --dry-run"} {
		if got := runPlain(t, dir, []string{"DATABASE_URL=" + url}, strings.Fields(args)...); got.code != exitDone || got.stderr != "" {
			t.Errorf("capture %s after history --ack: %+v", args, got)
		}
	}
}

// TestKeptLossIsDamaged checks the messages if the state before the loss is damaged. restore refuses this state, so the
// messages name no restore command. Instead, they refer to the documentation. Its steps restore the undamaged rows.
func TestKeptLossIsDamaged(t *testing.T) {
	t.Parallel()
	url, dir := exported(t, 60)
	env := []string{"DATABASE_URL=" + url}
	path := filepath.Join(dir, "data/fallback/feedback.json")
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(strings.Replace(string(content), `{"vote_id":50,`, `{"vote_id:50,,`, 1)), 0o640); err != nil {
		t.Fatal(err)
	}
	written, state := empty(t, url, dir)

	hint := state + ` is damaged, and capture restore refuses it; see "When it refuses" in docs/recovery.md`
	wantAll(t, written.stderr, "To bring rows back: "+hint)
	wantAll(t, runPlain(t, dir, env, "restore", "--on-conflict", "skip", "--dry-run").stderr, "To bring rows back: "+hint+" – or, if it was meant")
	wantAll(t, runPlain(t, dir, nil, "history").stdout, "bring the rows back: "+hint+"\n")
	if got := runPlain(t, dir, env, "restore", "--on-conflict", "skip", state); got.code != exitFailed || !strings.Contains(got.stderr, "it is not the file that its manifest describes") {
		t.Errorf("the damaged state: %+v", got)
	}

	rows := filepath.Join(dir, "data/fallback/rows.json")
	script := `set -e; gunzip -c "$1" > "$2"; bad=$("$3" restore --on-conflict skip "$2" 2>&1 | sed -n 's/.*: line \([0-9]*\):.*/\1/p'); sed "${bad}d" "$2" > "$2.new"; mv "$2.new" "$2"`
	cmd := exec.Command("sh", "-c", script, "sh", filepath.Join(dir, state), rows, plain)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if output, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, output)
	}
	if got := runPlain(t, dir, env, "restore", "--on-conflict", "skip", rows); got.code != exitDone || !strings.Contains(got.stdout, "inserted     59 rows") {
		t.Errorf("the copy without the damaged row: %+v", got)
	}
}

// TestManyKeptLosses checks that only the newest three of many losses are printed, as in the status. If the file equals the
// state before a loss, this loss is not printed.
func TestManyKeptLosses(t *testing.T) {
	t.Parallel()
	_, dir, lossPath := emptied(t)
	for day := range 4 {
		for _, suffix := range []string{".json.gz", ".manifest.json"} {
			older := filepath.Join(dir, fmt.Sprintf("data/fallback/feedback-2026010%dT120000Z-loss%s", day+1, suffix))
			if err := os.Link(filepath.Join(dir, strings.TrimSuffix(lossPath, ".json.gz")+suffix), older); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := runPlain(t, dir, nil, "verify")
	wantAll(t, got.stderr, lossPath, "feedback-20260104T120000Z-loss.json.gz", "feedback-20260103T120000Z-loss.json.gz")
	if got.code != exitDone || strings.Count(got.stderr, "data/fallback/feedback.json follows 5 losses that nobody has acknowledged:\n") != 1 ||
		strings.Count(got.stderr, "history --ack") != 1 || strings.Count(got.stderr, "Then run: capture restore --on-conflict skip ") != 2 || !strings.HasSuffix(got.stderr, "\ncapture verify: losses not shown: 2. To list them: capture history --output data/fallback/feedback.json\n") {
		t.Errorf("%+v", got)
	}

	_, dir = exported(t, 20)
	path := filepath.Join(dir, "data/fallback/feedback.json")
	compressed := keepState(t, filepath.Dir(path), "20261123T160000Z", &manifest.Loss{RowsBefore: 20, RowsLost: 20})
	if got := runPlain(t, dir, nil, "verify"); got.code != exitDone || got.stderr != "" {
		t.Errorf("the file equals the state before the loss: %+v", got)
	}
	if err := errors.Join(os.Remove(compressed), os.Link(path, strings.TrimSuffix(compressed, ".gz")),
		os.WriteFile(strings.TrimSuffix(compressed, ".json.gz")+".manifest.json", nil, 0o640)); err != nil {
		t.Fatal(err)
	}
	if got := runPlain(t, dir, nil, "verify"); got.code != exitDone || got.stderr != "" {
		t.Errorf("the file is the state before the loss: %+v", got)
	}
}

// TestKeptStateCompressedSincePrinted checks that the printed path of a kept state works even after capture has compressed
// the state. The path of any other missing file does not lead to a kept state.
func TestKeptStateCompressedSincePrinted(t *testing.T) {
	t.Parallel()
	_, dir, lossPath := emptied(t)
	env := []string{"DATABASE_URL=" + pgserver.Database(t)}
	printed := strings.TrimSuffix(lossPath, ".gz")
	ordinary := keepState(t, filepath.Join(dir, "data/fallback"), "20261123T160000Z", nil)
	note := "reading " + lossPath + ", because " + filepath.Base(printed) + " has been compressed\n"

	got := runPlain(t, dir, env, "restore", "--create", "--yes", printed)
	if got.code != exitDone || got.stderr != "capture restore: "+note || !strings.Contains(got.stdout, "inserted     60 rows") || !strings.Contains(got.stdout, "the file matches its manifest") {
		t.Errorf("restore: %+v", got)
	}
	got = runPlain(t, dir, nil, "verify", printed)
	if got.code != exitDone || got.stderr != "capture verify: "+note || !strings.Contains(got.stdout, "60 rows") {
		t.Errorf("verify: %+v", got)
	}
	for _, path := range []string{filepath.Join(dir, printed), filepath.Join(dir, "data/fallback/.feedback-20261123T160000Z.json")} {
		if got := runPlain(t, t.TempDir(), nil, "verify", path); got.code != exitDone || !strings.Contains(got.stderr, "has been compressed") {
			t.Errorf("verify %s: %+v", path, got)
		}
	}
	if got := runPlain(t, filepath.Join(dir, "data/fallback"), nil, "verify", filepath.Base(printed)); got.code != exitDone {
		t.Errorf("verify in the folder: %+v", got)
	}

	if err := os.WriteFile(filepath.Join(dir, "votes.json.gz"), []byte(gzipped(t, "[]\n")), 0o640); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{
		"votes.json", "data/fallback/feedback-20261123T160000Z.json", "data/fallback/feedback-20200101T000000Z-loss.json", "data/fallback/.feedback-loss.json",
		filepath.Base(printed), strings.Replace(printed, "feedback-", ".feedback-", 1), strings.Replace(printed, "Z-loss", "Z-loss-loss", 1), lossPath + ".json",
	} {
		if got := runPlain(t, dir, nil, "verify", path); got.code != exitFailed || !strings.Contains(got.stdout+got.stderr, path+": no such file") {
			t.Errorf("verify %s: %+v", path, got)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, printed), []byte("[]\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	if got := runPlain(t, dir, nil, "verify", printed); strings.Contains(got.stderr, "has been compressed") || strings.Contains(got.stdout, "60 rows, ") {
		t.Errorf("a file has the printed path: %+v", got)
	}
	if err := os.Remove(filepath.Join(dir, printed)); err != nil {
		t.Fatal(err)
	}

	for _, state := range []string{printed, filepath.Join(filepath.Dir(ordinary), ".feedback-20261123T160000Z.json")} {
		if got := runPlain(t, dir, nil, "history", "--yes", "--drop", state); got.code != exitDone || !strings.Contains(got.stdout, "deleted ") {
			t.Errorf("history --drop %s: %+v", state, got)
		}
	}
	if got := runPlain(t, dir, nil, "verify", printed); got.code != exitFailed || !strings.Contains(got.stdout+got.stderr, printed+": no such file") {
		t.Errorf("verify of a deleted state: %+v", got)
	}
}

// TestPrintedCommandsInHostileFolder gives the folder of the file a name that contains shell commands. The commands that
// capture prints work all the same, and the shell does not run the folder's name.
func TestPrintedCommandsInHostileFolder(t *testing.T) {
	t.Parallel()
	_, dir, _ := emptied(t)
	const folder = "it's $(touch ran) `touch ran`; touch ran"
	if err := os.Rename(filepath.Join(dir, "data/fallback"), filepath.Join(dir, folder)); err != nil {
		t.Fatal(err)
	}
	path, url := filepath.Join(folder, "feedback.json"), pgserver.Database(t)
	paste := func(command string) {
		t.Helper()
		cmd := exec.Command("sh", "-c", `program=$1; capture() { "$program" "$@"; }; `+command, "sh", plain)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "DATABASE_URL="+url)
		if output, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", command, err, output)
		}
	}
	got := runPlain(t, dir, nil, "verify", path)
	_, rest, _ := strings.Cut(got.stderr, "To bring rows back: ")
	restore, acknowledge, ok := strings.Cut(strings.TrimSuffix(rest, "\n"), " – or, if it was meant: ")
	if got.code != exitDone || !ok {
		t.Fatalf("%+v", got)
	}
	paste(strings.Replace(restore, "restore", "restore --create --yes", 1))
	paste(acknowledge)
	if got := runPlain(t, dir, []string{"DATABASE_URL=" + url}, "verify", path); got.stderr != "" || !strings.Contains(got.stdout, "60 missing in the file") {
		t.Errorf("after the printed commands: %+v", got)
	}
	if found, err := filepath.Glob(filepath.Join(dir, "ran*")); err != nil || len(found) != 0 {
		t.Errorf("the shell ran a part of the path: %v, %v", found, err)
	}
}

// TestRepairOfRuinedValues ruins all values, and repairs them with the command that capture prints. The repair is a loss, too.
// The texts about the repair must not begin with the command that brings the ruined values back.
func TestRepairOfRuinedValues(t *testing.T) {
	t.Parallel()
	url, dir := exported(t, 60)
	env := []string{"DATABASE_URL=" + url}
	sql(t, url, "UPDATE votes SET comment = 'ruined'", "INSERT INTO votes (vote_id, comment) VALUES (100, 'new')")
	runPlain(t, dir, env, "snapshot")
	ruined := runPlain(t, dir, env, "verify")
	_, command, _ := strings.Cut(ruined.stderr, "To bring rows back: capture ")
	command, _, _ = strings.Cut(command, " – or, if it was meant")
	if !strings.HasPrefix(command, "restore --on-conflict overwrite data/fallback/feedback-") {
		t.Fatalf("after the mistake: %+v", ruined)
	}
	repaired := runPlain(t, dir, env, append(strings.Fields(command), "--yes")...)
	wantAll(t, repaired.stdout, "overwritten  60 rows", "reports so many overwritten rows as a loss; if the table is right now: capture history --ack\n")
	runPlain(t, dir, env, "snapshot")
	for _, args := range []string{"verify", "history"} {
		got := runPlain(t, dir, env, args)
		wantAll(t, got.stdout+got.stderr, `60 of 61 rows got another value in column "comment"; this brought back lost values of the state of 2`)
		switch args {
		case "verify":
			wantAll(t, got.stderr, "If it was a repair: capture history --ack --output data/fallback/feedback.json – or, to undo it: capture restore --on-conflict overwrite data",
				". The state before is kept. To compare: capture verify data/fallback/feedback-")
		default:
			wantAll(t, got.stdout, "  end the alert, if it was a repair: capture history --ack --output data/fallback/feedback.json\n  or undo it: capture restore --on-conflict overwrite data",
				"  a later change has repaired it; to compare: capture verify data/fallback/feedback-")
		}
	}
	runPlain(t, dir, env, "history", "--ack")
	if got := runPlain(t, dir, env, "verify"); got.code != exitDone || got.stderr != "" {
		t.Errorf("after history --ack: %+v", got)
	}
}

// TestNextCommandAfterUnusableState: history prints restore commands that are joined by &&. If the first command fails,
// because the state that it restores is damaged or gone, the shell does not run the others. So the error says what to run next.
func TestNextCommandAfterUnusableState(t *testing.T) {
	t.Parallel()
	url, dir := exported(t, 20)
	env := []string{"DATABASE_URL=" + url}
	ruined := &manifest.Loss{RowsBefore: 20, RowsAfter: 20, RowsChanged: 20, Column: "comment"}
	folder := filepath.Join(dir, "data/fallback")
	keepState(t, folder, "20261123T100000Z", ruined)
	gone := keepState(t, folder, "20261123T110000Z", ruined)
	damaged := keepState(t, folder, "20261123T120000Z", ruined)
	deleted := keepState(t, folder, "20261123T130000Z", &manifest.Loss{RowsBefore: 20, RowsLost: 20})
	for _, path := range []string{damaged, deleted} {
		if err := os.Truncate(path, 60); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(gone); err != nil {
		t.Fatal(err)
	}
	const restore, good = "capture restore --on-conflict overwrite data/fallback/feedback-", "20261123T100000Z-loss.json.gz"
	next := "; this state cannot be restored, so leave it out, and run: " + restore
	wantAll(t, runPlain(t, dir, env, "history").stdout, "bring the rows back: "+restore+"20261123T120000Z-loss.json.gz && "+restore+good)
	for state, want := range map[string]string{
		"20261123T120000Z": next + good + "\n",
		"20261123T110000Z": next + "20261123T120000Z-loss.json.gz && " + restore + good + "\n",
		"20261123T130000Z": "To find another state: capture history --output data/fallback/feedback.json – and to restore the good rows of this state",
	} {
		got := runPlain(t, dir, env, "restore", "--yes", "--on-conflict=overwrite", "data/fallback/feedback-"+state+"-loss.json.gz")
		if got.code != exitFailed || !strings.Contains(got.stderr, want) {
			t.Errorf("%s: %+v, want %q", state, got, want)
		}
	}
	if got := runPlain(t, dir, env, "restore", "data/fallback/feedback-"+good); got.code != exitFailed || strings.Contains(got.stderr, "this state") {
		t.Errorf("the table is the cause of the error: %+v", got)
	}
}

// TestSeveralCopiedLosses: several losses precede the newest copy. The note names the state before the earliest loss of values,
// because later states have ruined values.
func TestSeveralCopiedLosses(t *testing.T) {
	t.Parallel()
	const cluster = "7400000000000000001"
	root := t.TempDir()
	folder := filepath.Join(root, cluster)
	copyState(t, folder, cluster)
	content, err := os.ReadFile(filepath.Join(folder, "feedback-20261123T160000Z-0000000000000100-1.manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	for stem, loss := range map[string]string{
		"feedback-20261122T150000Z-0000000000000060-7-loss": `"rows_lost":7`,
		"feedback-20261122T160000Z-0000000000000070-7-loss": `"rows_changed":7,"column":"comment"`,
		"feedback-20261122T170000Z-0000000000000080-7-loss": `"rows_changed":7,"column":"comment"`,
		"feedback-20261122T180000Z-0000000000000090-7-loss": `"rows_lost":7`,
	} {
		text := strings.NewReplacer(`"rows":1,`, `"rows":7,"kept":{"loss":{"found":"2026-11-22T18:00:00Z","rows_before":7,`+loss+`}},`,
			sha256Hex("[\n{\"vote_id\":1}\n]\n"), sha256Hex(stem)).Replace(string(content))
		if err := errors.Join(os.WriteFile(filepath.Join(folder, stem+".json.gz"), nil, 0o600), os.WriteFile(filepath.Join(folder, stem+".manifest.json"), []byte(text), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	got := run(t, t.TempDir(), nil, "verify", "file://"+root)
	if got.code != exitDone || strings.Count(got.stderr, "follows a loss") != 1 {
		t.Errorf("%+v", got)
	}
	wantAll(t, got.stderr, `7 of 7 rows got another value in column "comment". The state before it has 7 rows: --at 2026-11-22T16:00:00Z. `,
		"restore this state, and then run: capture restore --on-conflict overwrite file://"+folder+"/feedback-20261122T170000Z-0000000000000080-7-loss.json.gz && "+
			"capture restore --on-conflict overwrite file://"+folder+"/feedback-20261122T160000Z-0000000000000070-7-loss.json.gz\n")

	folder = "file://" + folder + "/feedback-"
	got = run(t, t.TempDir(), []string{"DATABASE_URL=" + pgserver.Database(t)}, "restore", folder+"20261122T170000Z-0000000000000080-7-loss.json.gz")
	if want := "this state cannot be restored, so leave it out, and run: capture restore --on-conflict overwrite " + folder + "20261122T160000Z-0000000000000070-7-loss.json.gz\n"; got.code != exitFailed ||
		!strings.Contains(got.stderr, want) {
		t.Errorf("a damaged copy: %+v, want %q", got, want)
	}
}
