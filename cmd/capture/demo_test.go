package main

import (
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestDemo(t *testing.T) {
	t.Parallel()
	tmp := openFolder(t)
	got := run(t, t.TempDir(), []string{"TMPDIR=" + tmp, "CAPTURE_OUTPUT=real/feedback.json"}, "demo", "--duration=5s", "--rate=20", "--seed=7")
	if got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	for _, want := range []string{
		`(?m)^  file +` + tmp + `/capture-demo-.*/feedback\.json$`, `(?m)^  page +http://127\.0\.0\.1:\d+/$`, `(?m)^  database +psql postgres://`, `(?m)^  seed +7$`,
		`(?m)^\d\d:\d\d:\d\d \+ vote 4\d +".*" .* → feedback\.json \d+ rows, [0-9.]+ kB, [0-9.]+ m?s after commit$`,
		`(?m)^feedback\.json equals the table: [0-9,]+ rows$`,
	} {
		if !regexp.MustCompile(want).MatchString(got.stdout) {
			t.Errorf("stdout lacks %s:\n%s", want, got.stdout)
		}
	}
	wantEmpty(t, tmp)
}

func TestDemoInterrupted(t *testing.T) {
	t.Parallel()
	tmp := openFolder(t)
	dir := t.TempDir()
	d := startIn(t, dir, []string{"TMPDIR=" + tmp}, "demo", "--output=kept/feedback.json", "--rate=5")
	eventually(t, "a vote in the file", func() bool {
		d.alive()
		return strings.Contains(d.stdout.String(), "after commit")
	})
	d.signal(syscall.SIGINT)
	if code := d.wait(patience); code != exitDone {
		t.Errorf("exit code %d", code)
	}
	if !strings.Contains(d.stdout.String(), "feedback.json equals the table") {
		t.Errorf("no comparison:\n%s", d.stdout.String())
	}
	wantEmpty(t, tmp)
	content, err := os.ReadFile(filepath.Join(dir, "kept/feedback.json"))
	if err != nil || !json.Valid(content) {
		t.Errorf("the file that was to be kept: %v", err)
	}
}

// openFolder is a temporary folder that other users may enter, as Postgres does where the tests are root.
func openFolder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "capture-test-demo-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		t.Errorf("%s is left behind in the temporary folder", e.Name())
	}
}

// The same seed makes the same votes, and what they hold is valid.
func TestDemoVotes(t *testing.T) {
	t.Parallel()
	a, b := rand.New(rand.NewPCG(7, 0)), rand.New(rand.NewPCG(7, 0))
	for range 200 {
		v, w := newVote(a), newVote(b)
		if v.question != w.question || v.answer != w.answer || v.citations != w.citations || v.evaluation != w.evaluation {
			t.Fatalf("%+v and %+v come of the same seed", v, w)
		}
		if !json.Valid([]byte(v.citations)) || !json.Valid([]byte(v.evaluation)) || len(v.tags) == 0 {
			t.Errorf("bad vote: %+v", v)
		}
		if strings.Contains(v.question+v.answer, "%s") {
			t.Errorf("no service in %q: %q", v.question, v.answer)
		}
	}
}

// A burst prints a few lines a second and counts the rest.
func TestWatchBurst(t *testing.T) {
	t.Parallel()
	var w watcher
	var out strings.Builder
	now := time.Unix(1000, 0)
	for i := range 10 {
		w.say(&out, change{sign: '+', id: i, committed: now}, now, "feedback.json")
	}
	w.sayHidden(&out, now.Add(time.Second), false)
	if got := strings.Count(out.String(), "after commit"); got != watchLines {
		t.Errorf("%d lines, want %d", got, watchLines)
	}
	if !strings.Contains(out.String(), "… and 6 more changes\n") {
		t.Errorf("the others are not counted:\n%s", out.String())
	}
}
