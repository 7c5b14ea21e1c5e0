package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"capture/internal/pgserver"
)

// docs/recovery.md is what happens: its console blocks are run, in their order, and say what the page says
// (go test ./cmd/capture -run RecoveryPage -update writes what they say into it).
func TestRecoveryPage(t *testing.T) {
	if testing.Short() {
		t.Skip("runs every command of the page")
	}
	t.Parallel()
	const path = "../../docs/recovery.md"
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	old, dir := votesDatabase(t, 0), t.TempDir()
	sql(t, old, `INSERT INTO votes (user_query, bot_response, feedback_tags, comment, "timestamp")
		SELECT 'How do I ' || i, repeat('So. ', 20), ARRAY['clear'], 'Vote ' || i, '2026-11-23 16:00' FROM generate_series(1, 2000) i`)
	if got := run(t, dir, []string{"DATABASE_URL=" + old}, "snapshot"); got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	keepHourly(t, filepath.Join(dir, "data/fallback"), "20261123T160000Z")
	page := &page{t: t, lines: strings.Split(string(content), "\n"), dir: dir, urls: strings.NewReplacer(
		"postgres://capture@db.example.com/app", old, "postgres://postgres@new.example.com/app", pgserver.Database(t))}
	got := page.run()
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if timeless(got) != timeless(string(content)) {
		t.Errorf("%s says something else than what happens, which is:\n%s", path, got)
	}
}

// keepHourly puts what --keep makes beside the file.
func keepHourly(t *testing.T, dir, stamp string) {
	t.Helper()
	read := func(name string) []byte {
		content, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	if _, err := z.Write(read("feedback.json")); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{".json.gz": zipped.Bytes(), ".manifest.json": read("feedback.manifest.json")} {
		if err := os.WriteFile(filepath.Join(dir, "feedback-"+stamp+name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

var spans = regexp.MustCompile(`\b[0-9.]+ m?s\b`)

// timeless is the page without how long things took.
func timeless(page string) string { return spans.ReplaceAllString(page, "N ms") }

// page is a page with console blocks: commands after "$ ", and what they say.
type page struct {
	t     *testing.T
	lines []string
	dir   string
	urls  *strings.Replacer
	env   []string // what the commands exported
}

// run runs all the commands, and returns the page with what they said.
func (p *page) run() string {
	var out []string
	inside, ran := false, 0
	for _, line := range p.lines {
		switch {
		case line == "```console":
			inside = true
			out = append(out, line)
		case inside && line == "```":
			inside = false
			out = append(out, line)
		case inside && strings.HasPrefix(line, "$ "):
			ran++
			out = append(out, line)
			if said := p.command(strings.TrimPrefix(line, "$ ")); said != "" {
				out = append(out, strings.Split(said, "\n")...)
			}
		case !inside:
			out = append(out, line)
		}
	}
	if ran == 0 {
		p.t.Error("the page has no commands")
	}
	return strings.Join(out, "\n")
}

func (p *page) command(line string) string {
	line = p.urls.Replace(line)
	if assignment, ok := strings.CutPrefix(line, "export "); ok {
		p.env = append(p.env, assignment)
		return ""
	}
	cmd := exec.CommandContext(p.t.Context(), "sh", "-c", line)
	cmd.Dir = p.dir
	cmd.Env = append([]string{"PATH=" + filepath.Dir(binary) + ":" + os.Getenv("PATH"), "HOME=" + p.dir, "NO_COLOR=1"}, p.env...)
	said, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.ExitCode() != exitFailed {
		p.t.Errorf("$ %s\n%s%v", line, said, err)
	}
	return strings.TrimRight(fmt.Sprint(string(said)), "\n")
}
