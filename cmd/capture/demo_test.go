package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"capture/internal/demo"
)

func TestDemo(t *testing.T) {
	if testing.Short() {
		t.Skip("runs the demo for seconds")
	}
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
	if testing.Short() {
		t.Skip("runs the demo for seconds")
	}
	t.Parallel()
	tmp := openFolder(t)
	dir := t.TempDir()
	d := startIn(t, dir, []string{"TMPDIR=" + tmp}, "demo", "--output=kept/feedback.json", "--rate=5")
	eventually(t, "a vote in the file", func() bool {
		d.alive()
		return strings.Contains(d.stdout.String(), "after commit")
	})
	d.signal(syscall.SIGINT)
	if code := d.wait(waitTimeout); code != exitDone {
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

// openFolder returns a temporary folder that every user may enter. If the tests run as root, Postgres runs as another user,
// who must be able to enter the folder.
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

// TestChangePrinter checks that changePrinter prints only a few lines per second during a burst, and counts the other
// changes.
func TestChangePrinter(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	p := changePrinter{out: &out, name: "feedback.json"}
	now := time.Unix(1000, 0)
	for i := range 10 {
		p.printChange(demo.Change{Operation: demo.Insert, ID: i, Committed: now}, demo.File{Read: now})
	}
	later := now.Add(time.Second)
	p.printChange(demo.Change{Operation: demo.Delete, ID: 10, Committed: later}, demo.File{Read: later})
	p.printHidden()
	if got := strings.Count(out.String(), "after commit"); got != demoLines+1 {
		t.Errorf("%d lines, want %d", got, demoLines+1)
	}
	if got := strings.Count(out.String(), "… and 6 more changes\n"); got != 1 {
		t.Errorf("the hidden changes are counted %d times:\n%s", got, out.String())
	}
}
