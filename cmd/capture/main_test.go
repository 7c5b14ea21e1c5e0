package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"capture/capture"
	"capture/internal/busy"
	"capture/internal/objectserver"
	"capture/internal/pgserver"
	"capture/store"
)

var (
	update = flag.Bool("update", false, "rewrite the golden files")
	binary string // path of capture, built with the race detector unless the tests are short
	plain  string // path of capture, built without the race detector
)

const waitTimeout = 60 * time.Second // busy.Limit makes it longer on a busy machine

// noExitPause prevents a program with the race detector from sleeping for a second when it exits. With this pause, capture
// could not stop within two seconds.
const noExitPause = "GORACE=atexit_sleep_ms=0"

func TestMain(m *testing.M) {
	flag.Parse()
	os.Exit(pgserver.Main(func() int {
		dir, err := os.MkdirTemp("", "capture-test-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "capture")
		plain = binary
		var group errgroup.Group
		if testing.Short() {
			group.Go(func() error { return buildBinary(binary) })
		} else {
			plain = filepath.Join(dir, "plain", "capture") // has the same name, so that it can take binary's place in PATH
			group.Go(func() error { return buildBinary(binary, "-race") })
			group.Go(func() error { return buildBinary(plain) })
		}
		if err := group.Wait(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return objectserver.Main(m.Run)
	}))
}

// buildBinary builds capture without symbol tables, as a release is built. Symbol tables take a quarter of the linker's time.
func buildBinary(path string, flags ...string) error {
	args := slices.Concat([]string{"build"}, flags, []string{"-trimpath", "-ldflags", "-s -w -X main.version=1.2.3-test -X main.commit=abc123", "-o", path, "."})
	if out, err := exec.Command("go", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("build capture: %w\n%s", err, out)
	}
	return nil
}

// concurrent lists the commands that have goroutines of their own.
var concurrent = []string{"run", "snapshot", "restore", "verify", "history", "demo"}

// binaryFor returns the path of the binary for a command. Only the concurrent commands use the binary with the race
// detector, because it takes five times as long to start.
func binaryFor(args []string) string {
	if len(args) > 0 && slices.Contains(concurrent, args[0]) {
		return binary
	}
	return plain
}

// result is the result of a command.
type result struct {
	code           int
	stdout, stderr string
}

// prepare returns a command that runs capture in dir. The command's environment is env and a few variables of the test
// process.
func prepare(ctx context.Context, dir string, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, binaryFor(args), args...)
	cmd.Dir = dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + os.TempDir(), noExitPause}, env...)
	return cmd
}

// run runs a command until it exits.
func run(t *testing.T, dir string, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), busy.Limit(waitTimeout))
	defer cancel()
	return finish(t, prepare(ctx, dir, env, args...))
}

// runPlain is like run, but always uses the binary without the race detector. It is for commands that print help, refuse
// their arguments, prepare a test, check a result or read large files, and for tests that only compare what many commands
// print. Other tests run the same commands with the race detector.
func runPlain(t *testing.T, dir string, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), busy.Limit(waitTimeout))
	defer cancel()
	cmd := prepare(ctx, dir, env, args...)
	cmd.Path = plain
	return finish(t, cmd)
}

// finish runs a command that prepare has returned, and waits until the command exits.
func finish(t *testing.T, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", strings.Join(cmd.Args, " "), err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// daemon is a running "capture run".
type daemon struct {
	t      *testing.T
	cmd    *exec.Cmd
	dir    string
	path   string // path of feedback.json
	stdout output
	stderr output
	done   chan struct{} // closed when the process has exited
}

// start starts "capture run" in its own folder and on its own port.
func start(t *testing.T, url string, args ...string) *daemon {
	t.Helper()
	return startIn(t, t.TempDir(), []string{"DATABASE_URL=" + url}, append([]string{"run", "--listen=127.0.0.1:0"}, args...)...)
}

func startIn(t *testing.T, dir string, env []string, args ...string) *daemon {
	t.Helper()
	return startCommand(t, prepare(context.Background(), dir, env, args...))
}

// startCommand starts a command that prepare has returned.
func startCommand(t *testing.T, cmd *exec.Cmd) *daemon {
	t.Helper()
	d := &daemon{t: t, cmd: cmd, dir: cmd.Dir, path: filepath.Join(cmd.Dir, "data/fallback/feedback.json"), done: make(chan struct{})}
	d.cmd.Stdout, d.cmd.Stderr = &d.stdout, &d.stderr
	if err := d.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		_ = d.cmd.Wait() // the exit code is in ProcessState
		close(d.done)
	}()
	t.Cleanup(func() {
		_ = d.cmd.Process.Kill()
		<-d.done
		if t.Failed() {
			t.Logf("stderr of %s:\n%s", strings.Join(cmd.Args, " "), d.stderr.String())
		}
	})
	return d
}

// output collects the output of a running process.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

func (d *daemon) signal(s syscall.Signal) {
	d.t.Helper()
	if err := d.cmd.Process.Signal(s); err != nil {
		d.t.Fatal(err)
	}
}

// wait waits until the daemon exits and returns the exit code. It fails the test after a timeout, which is longer on a busy
// machine.
func (d *daemon) wait(timeout time.Duration) int {
	d.t.Helper()
	timeout = max(timeout, busy.Limit(stopTimeout))
	select {
	case <-d.done:
		return d.cmd.ProcessState.ExitCode()
	case <-time.After(timeout):
		_ = d.cmd.Process.Signal(syscall.SIGQUIT) // prints the goroutines
		<-d.done
		d.t.Fatalf("capture did not exit within %s", timeout)
		return -1
	}
}

// alive fails the test if the daemon has exited.
func (d *daemon) alive() {
	d.t.Helper()
	select {
	case <-d.done:
		d.t.Fatalf("capture exited with code %d:\n%s", d.cmd.ProcessState.ExitCode(), d.stderr.String())
	default:
	}
}

// address returns the address of the daemon's HTTP server.
func (d *daemon) address() string {
	d.t.Helper()
	var address string
	eventually(d.t, "the daemon's address in the lock file", func() bool {
		d.alive()
		owner, held, err := store.ReadOwner(d.path)
		address = owner.Listen
		return err == nil && held && address != ""
	})
	return address
}

// status waits until a status of the daemon meets the condition, and returns this status.
func (d *daemon) status(until func(capture.Status) bool) (s capture.Status) {
	d.t.Helper()
	address := d.address()
	defer func() {
		if d.t.Failed() {
			d.t.Logf("last status: %+v", s)
		}
	}()
	eventually(d.t, "the status", func() bool {
		s = capture.Status{}
		body, _ := get(d.t, "http://"+address+"/readyz")
		return json.Unmarshal(body, &s) == nil && until(s)
	})
	return s
}

// holds returns a function that reports whether the file equals the table. The table must not change after the call to
// holds.
func (d *daemon) holds(url string) func() bool {
	want := table(d.t, url)
	var last []byte // content that was compared last
	equal := false
	return func() bool {
		content, err := os.ReadFile(d.path)
		if err != nil {
			return false
		}
		if last == nil || !bytes.Equal(content, last) {
			last, equal = content, string(compact(content)) == want
		}
		return equal
	}
}

func (d *daemon) ready() capture.Status {
	d.t.Helper()
	return d.status(func(s capture.Status) bool { return s.Ready })
}

func get(t *testing.T, url string) (body []byte, code int) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err = io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return body, response.StatusCode
}

// eventually waits until the condition is true. The longer it waits, the less often it checks, because many conditions send
// a request to a daemon, and other tests need the processors.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	limit := busy.Limit(waitTimeout)
	for began := time.Now(); !condition(); {
		waited := time.Since(began)
		if waited > limit {
			t.Fatalf("waited %s for %s", limit, what)
		}
		<-time.After(min(max(10*time.Millisecond, waited/10), 100*time.Millisecond))
	}
}

// votesDatabase creates a database with n votes and returns its URL.
func votesDatabase(t *testing.T, n int) string {
	t.Helper()
	url := pgserver.Database(t)
	sql(t, url, pgserver.VotesTable, fmt.Sprintf(`INSERT INTO votes (user_query, bot_response, evaluation_json, feedback_tags, citations)
		SELECT 'Question '||n, E'Answer\n"'||n||'"', '{"score": 0.50}', '{Incorrect,"Looks Good / Accurate & Clear"}', '[1, 2]'
		FROM generate_series(1, %d) n`, n))
	return url
}

// sql runs statements on a database.
func sql(t *testing.T, url string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, s := range statements {
		if _, err := conn.Exec(t.Context(), s); err != nil {
			t.Fatalf("%s: %v", s, err)
		}
	}
}

// table returns the rows that feedback.json must contain, as compact JSON: the result of row_to_json for each row.
func table(t *testing.T, url string) string {
	t.Helper()
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.RuntimeParams["timezone"] = "UTC"
	conn, err := pgx.ConnectConfig(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	rows, err := conn.Query(t.Context(), `SELECT row_to_json(v)::text FROM votes v ORDER BY vote_id`)
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	return string(compact([]byte("[" + strings.Join(lines, ",") + "]")))
}

// compact removes white space outside strings. If the text is not valid JSON, compact returns it unchanged.
func compact(text []byte) []byte {
	var b bytes.Buffer
	if err := json.Compact(&b, text); err != nil {
		return text
	}
	return b.Bytes()
}

// wantEqual fails the test unless feedback.json equals the table.
func wantEqual(t *testing.T, path, url string) {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(compact(content)), table(t, url); got != want {
		t.Errorf("%s is\n%s\nthe table is\n%s", path, got, want)
	}
}
