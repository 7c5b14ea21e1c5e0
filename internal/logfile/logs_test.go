package logfile_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"

	"capture/internal/logfile"
)

// screen takes the place of stderr. A test can read it while the logs write to it.
type screen struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *screen) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

func testConfig(dir string, stderr io.Writer) logfile.Config {
	return logfile.Config{
		Usage: filepath.Join(dir, "usage", "usage.log"), Error: filepath.Join(dir, "errors", "error.log"),
		MaxSizeMB: 10, MaxBackups: 5, Stderr: stderr, Name: "capture",
	}
}

func openLogs(t *testing.T, cfg logfile.Config) *logfile.Logs {
	t.Helper()
	l, err := logfile.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

type line struct {
	Time    time.Time `json:"@timestamp"`
	Level   string    `json:"@level"`
	Message string    `json:"@message"`
	Module  string    `json:"@module"`
	Writer  int
	N       int
}

func parse(data []byte) (lines []line, err error) {
	for text := range bytes.Lines(data) {
		var l line
		if err := json.Unmarshal(text, &l); err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
		lines = append(lines, l)
	}
	return lines, nil
}

func lines(t *testing.T, path string) []line {
	t.Helper()
	l, err := parse(read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func messages(t *testing.T, path string) (out []string) {
	t.Helper()
	for _, l := range lines(t, path) {
		out = append(out, l.Message)
	}
	return out
}

func TestLogs(t *testing.T) {
	var stderr screen
	cfg := testConfig(t.TempDir(), &stderr)
	l := openLogs(t, cfg)
	log := l.Logger()
	log.Debug("unseen")
	log.Info("one", "rows", 1)
	log.Named("store").Warn("two")
	log.With("a", 1).Error("three\nlines\nlong")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	log.Info("too late")
	if got := messages(t, cfg.Usage); !slices.Equal(got, []string{"one", "two", "three\nlines\nlong"}) {
		t.Errorf("usage.log: %q", got)
	}
	if got := messages(t, cfg.Error); !slices.Equal(got, []string{"three\nlines\nlong"}) {
		t.Errorf("error.log: %q", got)
	}
	if got, err := parse([]byte(stderr.String())); err != nil || len(got) != 3 || got[1].Module != "capture.store" {
		t.Errorf("stderr: %+v, %v", got, err)
	}
	if text := read(t, cfg.Usage); !bytes.Contains(text, []byte(`Z"`)) {
		t.Errorf("not in UTC: %s", text)
	}

	stderr = screen{}
	cfg = testConfig(t.TempDir(), &stderr)
	cfg.Terminal, cfg.Level = true, hclog.Debug
	l = openLogs(t, cfg)
	l.Logger().Debug("seen", "rows", 1)
	l.Close()
	if text := stderr.String(); !strings.Contains(text, "[DEBUG] capture: seen: rows=1") || strings.Contains(text, "{") {
		t.Errorf("on a terminal: %q", text)
	}
	if got := messages(t, cfg.Usage); !slices.Equal(got, []string{"seen"}) {
		t.Errorf("usage.log: %q", got)
	}
}

// TestNamesOfOthers logs a name that somebody else has chosen, in every place where the logger can put a name. It checks
// that no log contains a character that a terminal interprets or does not show, and that programs can still read the name.
func TestNamesOfOthers(t *testing.T) {
	const name = "votes\u202e\u009b31m\u200d\U000e0041"
	for _, terminal := range []bool{false, true} {
		var stderr screen
		cfg := testConfig(t.TempDir(), &stderr)
		cfg.Terminal = terminal
		l := openLogs(t, cfg)
		l.Logger().With(name, name).Error("cannot read "+name, "error", errors.New(name))
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{string(read(t, cfg.Usage)), string(read(t, cfg.Error)), stderr.String()} {
			if text == "" || strings.ContainsFunc(text, func(r rune) bool { return r != '\n' && (r < ' ' || r > '~') }) {
				t.Errorf("terminal %t: %q", terminal, text)
			}
		}
		if got := messages(t, cfg.Usage); !slices.Equal(got, []string{"cannot read " + name}) {
			t.Errorf("usage.log: %q", got)
		}
	}
}

func TestInvalidConfig(t *testing.T) {
	for _, spoil := range []func(*logfile.Config){
		func(c *logfile.Config) { c.Error = filepath.Join(filepath.Dir(c.Usage), ".", "usage.log") },
		func(c *logfile.Config) { c.MaxSizeMB = 0 },
		func(c *logfile.Config) { c.MaxBackups = -1 },
	} {
		cfg := testConfig(t.TempDir(), io.Discard)
		spoil(&cfg)
		if l, err := logfile.Open(cfg); err == nil {
			l.Close()
			t.Errorf("accepted: %+v", cfg)
		}
	}
	for _, none := range []string{"", os.DevNull} {
		cfg := testConfig(t.TempDir(), io.Discard)
		cfg.Usage, cfg.Error = none, none
		l := openLogs(t, cfg)
		l.Logger().Info("nowhere")
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestRotation writes from many goroutines through several rotations. It checks that every line is in the files, whole and
// in order.
func TestRotation(t *testing.T) {
	cfg := testConfig(t.TempDir(), io.Discard)
	cfg.MaxSizeMB, cfg.MaxBackups = 1, 1000
	l := openLogs(t, cfg)
	const writers, each = 8, 3000
	var wg sync.WaitGroup
	for w := range writers {
		log := l.Logger().Named(fmt.Sprint(w))
		wg.Go(func() {
			for n := range each {
				log.Info("transaction", "Writer", w, "N", n, "keys", strings.Repeat("k", n%400))
			}
		})
	}
	wg.Wait()
	within(t, "all is written", func() bool { return l.Err() == nil })
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	backups, err := filepath.Glob(filepath.Join(filepath.Dir(cfg.Usage), "usage-*.log"))
	if err != nil || len(backups) < 4 {
		t.Fatalf("%d backups, %v", len(backups), err)
	}
	slices.Sort(backups)
	var next [writers]int
	for _, path := range append(backups, cfg.Usage) {
		if info, err := os.Stat(path); err != nil || info.Size() > 1<<20 {
			t.Errorf("%s is too large: %v", path, err)
		}
		for _, l := range lines(t, path) {
			if l.N != next[l.Writer] {
				t.Fatalf("%s: writer %d: line %d after %d", path, l.Writer, l.N, next[l.Writer]-1)
			}
			next[l.Writer]++
		}
	}
	for w, n := range next {
		if n != each {
			t.Errorf("writer %d: %d lines", w, n)
		}
	}
}

func TestMaxBackups(t *testing.T) {
	cfg := testConfig(t.TempDir(), io.Discard)
	cfg.MaxSizeMB, cfg.MaxBackups = 1, 2
	l := openLogs(t, cfg)
	for range 6000 {
		l.Logger().Info("transaction", "keys", strings.Repeat("k", 1000))
	}
	l.Close()
	within(t, "two backups remain", func() bool {
		backups, _ := filepath.Glob(filepath.Join(filepath.Dir(cfg.Usage), "usage-*.log"))
		return len(backups) == 2
	})
}

// TestFolderTrouble opens a log while its folder cannot be created, and then lets the folder be created. Later, the test
// removes the folder, and moves the file twice. Each time, the next line must be in a new file.
func TestFolderTrouble(t *testing.T) {
	var stderr screen
	dir := t.TempDir()
	cfg := testConfig(dir, &stderr)
	usage := filepath.Dir(cfg.Usage)
	if err := os.WriteFile(usage, nil, 0o644); err != nil { // not even root can create the folder while a file has its name
		t.Fatal(err)
	}
	l := openLogs(t, cfg)
	log := l.Logger()
	log.Info("one")
	log.Error("two")
	within(t, "the trouble is reported", func() bool { return l.Err() != nil })
	if err := l.Err(); !strings.Contains(err.Error(), cfg.Usage) {
		t.Errorf("the trouble is %v", err)
	}
	within(t, "the other log is written", func() bool { data, _ := os.ReadFile(cfg.Error); return len(data) > 0 })
	if err := os.Remove(usage); err != nil {
		t.Fatal(err)
	}
	within(t, "trouble is over", func() bool { return l.Err() == nil })
	within(t, "the log is there", func() bool { _, err := os.Stat(cfg.Usage); return err == nil })
	within(t, "nothing was lost", func() bool { return len(messages(t, cfg.Usage)) == 2 })
	within(t, "the trouble and its end are reported", func() bool {
		return strings.Count(stderr.String(), "can't be written") == 1 && strings.Count(stderr.String(), "written again") == 1
	})

	if err := os.RemoveAll(usage); err != nil {
		t.Fatal(err)
	}
	log.Info("three")
	within(t, "the folder is created again", func() bool { data, _ := os.ReadFile(cfg.Usage); return len(data) > 0 })
	if err := os.Rename(cfg.Usage, cfg.Usage+".1"); err != nil {
		t.Fatal(err)
	}
	log.Info("four")
	within(t, "the file is created again", func() bool { data, _ := os.ReadFile(cfg.Usage); return len(data) > 0 })
	if err := os.Rename(cfg.Usage, cfg.Usage+".2"); err != nil {
		t.Fatal(err)
	}
	l.Reopen()
	within(t, "the file is opened again", func() bool { _, err := os.Stat(cfg.Usage); return err == nil })
	log.Info("five")
	l.Close()
	for path, want := range map[string]string{cfg.Usage + ".1": "three", cfg.Usage + ".2": "four", cfg.Usage: "five"} {
		if got := messages(t, path); !slices.Equal(got, []string{want}) {
			t.Errorf("%s: %q", path, got)
		}
	}
}

// TestNotRegularFile uses a FIFO and a folder as paths of the logs. It checks that both logs report an error, do not block
// the logger, and do not replace the FIFO or the folder.
func TestNotRegularFile(t *testing.T) {
	cfg := testConfig(t.TempDir(), io.Discard)
	if err := os.MkdirAll(cfg.Error, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(cfg.Usage), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(cfg.Usage, 0o644); err != nil {
		t.Fatal(err)
	}
	l := openLogs(t, cfg)
	for range 5000 { // more lines than the queue of a log holds
		l.Logger().Error("lost")
	}
	within(t, "both report trouble", func() bool {
		err := l.Err()
		return err != nil && strings.Contains(err.Error(), cfg.Usage) && strings.Contains(err.Error(), cfg.Error)
	})
	if err := l.Close(); err == nil {
		t.Error("Close reports no error")
	}
	for _, path := range []string{cfg.Usage, cfg.Error} {
		if info, err := os.Lstat(path); err != nil || info.Mode().IsRegular() {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
}

// TestLinkIsNotFollowed checks that a link in the place of a log is reported, and that its target does not change.
func TestLinkIsNotFollowed(t *testing.T) {
	cfg, precious := testConfig(t.TempDir(), io.Discard), filepath.Join(t.TempDir(), "precious")
	cfg.Error = ""
	if err := errors.Join(os.WriteFile(precious, []byte("precious"), 0o600), os.MkdirAll(filepath.Dir(cfg.Usage), 0o755), os.Symlink(precious, cfg.Usage)); err != nil {
		t.Fatal(err)
	}
	l := openLogs(t, cfg)
	l.Logger().Error("lost")
	within(t, "the log reports trouble", func() bool { return l.Err() != nil && strings.Contains(l.Err().Error(), "not a regular file") })
	l.Close()
	if content := string(read(t, precious)); content != "precious" {
		t.Errorf("what the link leads to is now %q", content)
	}
}

// TestStuckStderr checks that usage.log gets all lines even if nobody reads stderr.
func TestStuckStderr(t *testing.T) {
	r, w := io.Pipe()
	cfg := testConfig(t.TempDir(), w)
	l := openLogs(t, cfg)
	const n = 10_000
	for range n {
		l.Logger().Info("line")
	}
	within(t, "usage.log has all", func() bool { return bytes.Count(read(t, cfg.Usage), []byte("\n")) == n })
	l.Close()
	r.Close()
}

// TestLineTooLong checks that a line that exceeds the maximum size of a log is dropped and reported. [Logs.Err] still
// returns nil.
func TestLineTooLong(t *testing.T) {
	var stderr screen
	cfg := testConfig(t.TempDir(), &stderr)
	cfg.MaxSizeMB = 1
	l := openLogs(t, cfg)
	l.Logger().Info("long", "keys", strings.Repeat("k", 2<<20))
	within(t, "the dropped line is reported", func() bool { return strings.Contains(stderr.String(), "a log line is too long and was dropped") })
	if err := l.Err(); err != nil {
		t.Errorf("after the dropped line: %v", err)
	}
	l.Logger().Info("short")
	l.Close()
	if got := messages(t, cfg.Usage); !slices.Equal(got, []string{"short"}) {
		t.Errorf("usage.log: %q", got)
	}
	if text := stderr.String(); strings.Count(text, "too long and was dropped") != 1 || strings.Contains(text, "can't be written") {
		t.Errorf("stderr has no report of one dropped line, or a false one:\n%.500s", text[strings.Index(text, "\n"):])
	}
}
