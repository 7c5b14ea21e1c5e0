package main

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"capture/capture"
	"capture/internal/objectserver"
	"capture/internal/pgserver"
)

// TestRecoveryPage runs the commands in the console blocks of docs/recovery.md in order, and compares their output with the
// page. The command "go test ./cmd/capture -run RecoveryPage -update" writes their output into the page.
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
	// All databases of a server share the roles, and the page uses the roles rag and capture. So the page has its own servers.
	first, dir := pgserver.ForTest(t, pgserver.Options{}), t.TempDir()
	second := pgserver.ForTest(t, pgserver.Options{})
	roleOn := func(s *pgserver.Server, role string) string { return asRole(s.URL("app"), role) }
	old := roleOn(first, "rag")
	sql(t, first.URL("postgres"), "CREATE ROLE rag LOGIN", "CREATE DATABASE app OWNER rag")
	sql(t, old, pgserver.VotesTable, `INSERT INTO votes (user_query, bot_response, feedback_tags, comment, "timestamp")
		SELECT 'How do I ' || i, repeat('So. ', 20), ARRAY['clear'], 'Vote ' || i, '2026-11-23 16:00' FROM generate_series(1, 2000) i`)
	if got := runPlain(t, dir, []string{"DATABASE_URL=" + old}, "snapshot"); got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	if got := run(t, dir, []string{"DATABASE_URL=" + first.URL("app")}, "setup", "--role=capture"); got.code != exitDone {
		t.Fatalf("%+v", got)
	}
	d := startIn(t, dir, []string{"DATABASE_URL=" + roleOn(first, "capture")}, "run", "--listen=127.0.0.1:0", "--flush-interval=168h")
	d.ready()
	bucket := objectserver.NewBucket(t, "s3")
	page := &page{t: t, lines: strings.Split(string(content), "\n"), dir: dir, stamps: map[string]string{}, urls: strings.NewReplacer(
		"postgres://rag@db.example.com/app", old, "postgres://postgres@db.example.com/app", first.URL("app"),
		"postgres://rag@new.example.com/app", roleOn(second, "rag"), "postgres://capture@new.example.com/app", roleOn(second, "capture"),
		"postgres://postgres@new.example.com", "postgres://postgres@"+second.Addr(),
		"postgres://rag@another.example.com/app", asRole(second.URL("another"), "rag"), "s3://backups", bucket.URL)}
	page.bucket = bucket
	page.beforeLine = map[string]func(){
		`$ psql "$DATABASE_URL" -Atqc "INSERT INTO votes (comment, timestamp) VALUES ('after the loss', '2026-11-23 17:30') RETURNING vote_id"`: func() {
			d.status(func(s capture.Status) bool { return s.Kept.Losses == 1 })
		},
		"$ capture status | grep loss": func() {
			d.status(func(s capture.Status) bool {
				return slices.ContainsFunc(s.Checks, func(c capture.Check) bool { return strings.Contains(c.Detail, "-loss.json.gz") })
			})
		},
		"## The table was dropped": func() {
			d.status(func(s capture.Status) bool { return s.Kept.Losses == 0 }) // wait until the restored rows have ended the loss
		},
		"$ capture status | grep following": func() {
			d.status(func(s capture.Status) bool { return strings.Contains(s.Error, "does not exist") })
		},
		`$ capture status | grep -o "^✓ ready"`: func() { d.ready() },
		"## First: stop capture": func() {
			d.signal(syscall.SIGTERM)
			d.wait(stopTimeout)
			hourAgo := time.Now().UTC().Add(-time.Hour).Format("20060102T150405Z")
			keepHourly(t, filepath.Join(dir, "data/fallback"), hourAgo)
			page.stamps["20261123T160000Z"] = hourAgo
		},
		"## The machine is gone": func() {
			sql(t, second.URL("postgres"), "CREATE DATABASE another OWNER rag")
			page.env = append(page.env, objectserver.Environ(bucket.Env)...)
			lost := startIn(t, t.TempDir(), append(page.env, "DATABASE_URL="+roleOn(first, "capture")), "run", "--listen=127.0.0.1:0", "--copy-to="+bucket.URL+"/votes")
			lost.status(func(s capture.Status) bool { return s.Copies != nil && s.Copies.Proven != nil })
			lost.signal(syscall.SIGKILL)
			<-lost.done
		},
	}
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

// asRole returns url with role in place of the superuser postgres.
func asRole(url, role string) string { return strings.Replace(url, "postgres@", role+"@", 1) }

// keepHourly puts an hourly kept state beside the file, as capture does with --keep.
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

var spans = regexp.MustCompile(`\b[0-9.]+ m?s\b|(\b[0-9]+ (d|h|min) ?)+ old|takes [0-9.]+ kB`)

// timeless replaces each duration, each age and each size of a compressed file with "N ms", because these values differ
// between two runs.
func timeless(page string) string { return spans.ReplaceAllString(page, "N ms") }

// page is a documentation page with console blocks. A block contains commands after "$ ", and their output.
type page struct {
	t     *testing.T
	lines []string
	dir   string
	urls  *strings.Replacer
	env   []string // environment variables that the page's commands have exported

	bucket *objectserver.Bucket // bucket that the page calls s3://backups

	beforeLine map[string]func() // maps a line of the page to what the test does before this line
	stamps     map[string]string // maps a time on the page to the actual time of the kept state
	shown      int               // number of timestamps that showTimes has chosen
}

// run runs all the commands, and returns the page with their output.
func (p *page) run() string {
	var out []string
	inside, ran := false, 0
	for _, line := range p.lines {
		if do := p.beforeLine[line]; do != nil {
			do()
		}
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
	for shown, stamp := range p.stamps {
		line = strings.ReplaceAll(line, shown, stamp)
	}
	if assignment, ok := strings.CutPrefix(line, "export "); ok {
		p.env = append(p.env, assignment)
		return ""
	}
	// The page's many commands run without the race detector: other tests run these commands with it.
	cmd := exec.CommandContext(p.t.Context(), "sh", "-c", line)
	cmd.Dir = p.dir
	cmd.Env = append([]string{"PATH=" + filepath.Dir(plain) + ":" + os.Getenv("PATH"), "HOME=" + p.dir, "NO_COLOR=1", noExitPause}, p.env...)
	said, err := cmd.CombinedOutput()
	if err != nil && cmd.ProcessState.ExitCode() != exitFailed {
		p.t.Errorf("$ %s\n%s%v", line, said, err)
	}
	return showOthers(p.showCopies(p.showTimes(strings.TrimRight(string(said), "\n"))))
}

var (
	attemptPattern = regexp.MustCompile(` \(attempt \d+, the next at [^)]*\)`)
	versionPattern = regexp.MustCompile(`IS 'capture [^:]+: `)
)

// showOthers removes two texts about attempts to connect, because they are not always there. The number and the time of an
// attempt are missing while an attempt runs. Only the message of the first attempt says that the file keeps its state.
// showOthers also replaces capture's version in a comment with the version that the page shows.
func showOthers(said string) string {
	said = strings.ReplaceAll(said, "; feedback.json keeps the last state it had", "")
	said = attemptPattern.ReplaceAllString(said, "")
	return versionPattern.ReplaceAllString(said, "IS 'capture 1.2.3: ")
}

var (
	clusterPattern  = regexp.MustCompile(`\b\d{16,20}\b`) // a system identifier, of 64 bits
	positionPattern = regexp.MustCompile(`-[0-9A-F]{16}-`)
)

// showCopies replaces the bucket's name, the system identifier and the WAL positions in the output with the values that the
// page shows.
func (p *page) showCopies(said string) string {
	said = strings.ReplaceAll(said, p.bucket.URL, "s3://backups")
	said = positionPattern.ReplaceAllString(said, "-0000000001A2B3C0-") // positions first: a position that consists of digits only would match clusterPattern
	return clusterPattern.ReplaceAllString(said, "7412345678901234567")
}

var (
	stampPattern = regexp.MustCompile(`\b20\d{6}T\d{6}Z`)
	foundPattern = regexp.MustCompile(`\b20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ`)
)

// showTimes replaces the times of kept states in the output with the times that the page shows. The first time becomes
// 17:00, and the next one 18:00. The time of a loss becomes 17:20:05.
func (p *page) showTimes(said string) string {
	for _, stamp := range stampPattern.FindAllString(said, -1) {
		if strings.HasPrefix(stamp, "20261123T") {
			continue
		}
		shown := ""
		for s, known := range p.stamps {
			if known == stamp {
				shown = s
			}
		}
		if shown == "" {
			shown = fmt.Sprintf("20261123T%d0000Z", 17+p.shown)
			p.shown++
			p.stamps[shown] = stamp
		}
		said = strings.ReplaceAll(said, stamp, shown)
		is, err := time.Parse("20060102T150405Z", stamp)
		as, aerr := time.Parse("20060102T150405Z", shown)
		if err != nil || aerr != nil {
			p.t.Errorf("%q, %q: %v, %v", stamp, shown, err, aerr)
		}
		said = strings.ReplaceAll(said, timeText(is), timeText(as))
	}
	return foundPattern.ReplaceAllString(said, "2026-11-23T17:20:05Z")
}
