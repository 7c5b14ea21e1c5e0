package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"capture/capture"
	"capture/internal/volume"
)

func TestStatus(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 1234)
	d := start(t, url)
	d.ready()
	got := run(t, d.dir, nil, "status") // without flags, status finds the daemon through the lock file
	if got.code != exitDone || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	for _, want := range []string{"✓ ready", "votes", "logical", "1,234", "✓ following", "✓ file", d.path[len(d.dir)+1:], "LSN ", fmt.Sprint(d.cmd.Process.Pid)} {
		if !strings.Contains(got.stdout, want) {
			t.Errorf("lacks %q", want)
		}
	}
	if strings.Contains(got.stdout, "\x1b") {
		t.Error("has colors although stdout is not a terminal")
	}
	if t.Failed() {
		t.Log(got.stdout)
	}

	elsewhere := t.TempDir() // without a lock file, status uses CAPTURE_LISTEN
	got = run(t, elsewhere, []string{"CAPTURE_LISTEN=" + d.address()}, "status", "--json")
	var s capture.Status
	if err := json.Unmarshal([]byte(got.stdout), &s); err != nil || got.code != exitDone || s.Rows != 1234 || !s.Ready {
		t.Errorf("%+v: %v", got, err)
	}
}

func TestStatusNotReady(t *testing.T) {
	t.Parallel()
	d := start(t, "postgres://nobody@127.0.0.1:1/none")
	d.status(func(s capture.Status) bool { return s.Error != "" })
	got := run(t, d.dir, nil, "status")
	if got.code != exitFailed || !strings.Contains(got.stdout, "✗ not ready") || !strings.Contains(got.stdout, "127.0.0.1:1") {
		t.Errorf("%+v", got)
	}
	got = run(t, d.dir, nil, "status", "--json")
	if got.code != exitFailed || !strings.Contains(got.stdout, `"ready":false`) && !strings.Contains(got.stdout, `"ready": false`) {
		t.Errorf("%+v", got)
	}
}

func TestStatusWithoutDaemon(t *testing.T) {
	t.Parallel()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	got := run(t, t.TempDir(), nil, "status", "--listen="+address)
	if got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, "capture run") || !strings.Contains(got.stderr, address) {
		t.Errorf("%+v", got)
	}

	// Odd files in the place of capture's files must not make the command hang. The command must say what to do.
	for _, c := range []struct{ file, kind, want string }{
		{"feedback.json", "folder", "But feedback.json is not a regular file: remove it first"}, {"feedback.json", "pipe", "But feedback.json is not a regular file: remove it first"},
		{"feedback.manifest.json", "folder", "feedback.manifest.json: it is not a regular file"}, {"feedback.manifest.json", "pipe", "feedback.manifest.json: it is not a regular file"},
		{"feedback.json.lock", "folder", "lock feedback.json.lock: it is not a regular file; remove it"}, {"feedback.json.lock", "link", "lock feedback.json.lock: it is not a regular file; remove it"},
	} {
		dir := t.TempDir()
		path, lock := filepath.Join(dir, c.file), filepath.Join(dir, "feedback.json.lock")
		var err error
		switch c.kind {
		case "folder":
			err = os.Mkdir(path, 0o700)
		case "pipe":
			err = syscall.Mkfifo(path, 0o600)
		case "link":
			err = os.Symlink("nothing", path)
		}
		if err == nil && path != lock {
			err = os.WriteFile(lock, nil, 0o600) // capture ran here
		}
		if err != nil {
			t.Fatal(err)
		}
		got := run(t, dir, nil, "status", "--output=feedback.json", "--listen="+address)
		if got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, c.want) {
			t.Errorf("%s %s: %+v", c.kind, c.file, got)
		}
	}

	// If another program listens at this address, status reports an error.
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, `{"ready":true}`) }))
	defer other.Close()
	got = run(t, t.TempDir(), nil, "status", "--listen="+other.Listener.Addr().String())
	if got.code != exitFailed || got.stdout != "" || !strings.Contains(got.stderr, "not capture") {
		t.Errorf("%+v", got)
	}
}

// TestOtherProgramAnswers checks that `capture status` and `capture snapshot` report an error if another program answers at the
// daemon's address. They must not show that program's answer, whatever it is.
func TestOtherProgramAnswers(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"not HTTP":    "SSH-2.0-OpenSSH_9.2\r\n",
		"bad code":    "HTTP/1.1 OTHER\r\n\r\n",
		"nothing":     "",
		"cut short":   "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{",
		"other paths": "HTTP/1.1 404 OTHER\r\nContent-Length: 5\r\n\r\nOTHER",
		"other JSON":  "HTTP/1.1 200 OK\r\nContent-Length: 14\r\n\r\n{\"ready\":true}",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			go func() {
				for {
					c, err := listener.Accept()
					if err != nil {
						return
					}
					_, _ = c.Read(make([]byte, 4096))
					_, _ = c.Write([]byte(answer))
					c.Close()
				}
			}()
			address := listener.Addr().String()
			if got := run(t, t.TempDir(), nil, "status", "--listen="+address); got.code != exitFailed || !strings.Contains(got.stderr, address) ||
				!strings.Contains(got.stderr, otherProgram) || strings.Contains(got.stderr, "OTHER") || strings.Contains(got.stderr, "SSH") {
				t.Errorf("status: %+v", got)
			}
			err = snapshotCmd{}.requestSnapshot(t.Context(), streams{out: io.Discard, err: io.Discard}, address)
			if err == nil || !strings.Contains(err.Error(), otherProgram) || strings.Contains(err.Error(), "OTHER") {
				t.Errorf("snapshot: %v", err)
			}
		})
	}
}

// TestStatusWhileAllConnectionsAreTaken checks that `capture status` works while other clients hold all connections of the
// HTTP server. The container's health check uses this command.
func TestStatusWhileAllConnectionsAreTaken(t *testing.T) {
	t.Parallel()
	d := start(t, "postgres://nobody@127.0.0.1:1/none")
	d.status(func(s capture.Status) bool { return s.Error != "" })
	for range 600 {
		c, err := net.Dial("tcp", d.address())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	for i := range 10 {
		if got := run(t, d.dir, nil, "status"); !strings.Contains(got.stdout, "not ready") {
			t.Fatalf("call %d of 10: %+v", i+1, got)
		}
	}
}

// TestStatusText checks that the status as text equals the golden file.
func TestStatusText(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 16, 2, 7, 0, time.UTC)
	before := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	following := capture.Status{
		Version: "1.2.3", PID: 42, Host: "db1", Started: now.Add(-52 * time.Hour), Ready: true, State: "following",
		Checks: []capture.Check{{Name: "following", OK: true, Detail: "by logical"}, {Name: "logs", OK: false, Detail: "usage.log: no space left"}},
		Table:  "public.votes", Database: "db1:5432/rag", SystemID: "7301", ServerVersion: "18.1", Source: "logical",
		Rows: 1234567, Bytes: 3 << 30, LSN: "0/1B3C4D8", CommitTime: before(4200 * time.Millisecond), LastContact: before(time.Second),
		LagBytes: 5000, LagSeconds: 0.3, RetainedWAL: 64 << 20, Transactions: 7,
		LastRead: &capture.ReadStatus{Ended: now.Add(-3 * time.Hour), Rows: 312, Deleted: 4, Bytes: 20 << 20, MS: 1234},
		File: capture.FileStatus{Path: "/app/data/fallback/feedback.json", Written: before(70 * time.Second), Reason: "change",
			Rows: 1234566, Bytes: 3 << 30, LSN: "0/1B3C000", Millis: 8123, Pending: before(100 * time.Millisecond)},
		Kept:    capture.KeptStatus{States: 31, Bytes: 9 << 30, Oldest: before(76 * time.Hour)},
		Volumes: []volume.Usage{{Name: "fallback", Bytes: 6 << 30, Size: 100 << 30, Free: 40 << 30}},
	}
	next := now.Add(8 * time.Second)
	waiting := capture.Status{
		Version: "1.2.3", PID: 42, Host: "db1", Started: now.Add(-90 * time.Second), State: "waiting",
		Checks: []capture.Check{{Name: "following", OK: false, Detail: "connect to db1:5432: connection refused"}, {Name: "file", OK: false, Detail: "there is none yet"}},
		Table:  "votes", Database: "db1:5432/rag", Error: "connect to db1:5432: connection refused", Attempts: 3, NextAttempt: &next,
		File: capture.FileStatus{Path: "/app/data/fallback/feedback.json", Error: "no space left on device"},
	}
	golden(t, filepath.Join("testdata", "status.txt"), statusText(following, "", palette{}, screen{}, now)+"----\n"+statusText(waiting, "", palette{}, screen{}, now))
}

// TestStatusWatch checks that --watch shows the status again and again until the command is interrupted, even while the
// daemon does not run.
func TestStatusWatch(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for several reports")
	}
	t.Parallel()
	d := start(t, "postgres://nobody@127.0.0.1:1/none")
	d.status(func(s capture.Status) bool { return s.Error != "" })
	cmd := prepare(t.Context(), d.dir, nil, "status", "--watch")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for shown := 0; shown < 2; {
		if !lines.Scan() {
			t.Fatalf("ended after %d: %v", shown, lines.Err())
		}
		if strings.Contains(lines.Text(), "not ready") {
			shown++
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
}

// TestPageAddressEscapesTheToken checks that pageAddress escapes the token. The page unescapes it.
func TestPageAddressEscapesTheToken(t *testing.T) {
	if got, want := pageAddress("127.0.0.1:8080", "a+b/c="), "http://127.0.0.1:8080/#token=a%2Bb%2Fc%3D"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

// TestFailingChecks checks that the most important failing checks are shown first.
func TestFailingChecks(t *testing.T) {
	t.Parallel()
	var checks []capture.Check
	for _, name := range []string{"role", "logs", "copy", "memory", "following"} {
		checks = append(checks, capture.Check{Name: name})
	}
	checks = append(checks, capture.Check{Name: "file", OK: true})
	var order []string
	for _, c := range failingChecks(checks) {
		order = append(order, c.Name)
	}
	if got := strings.Join(order, " "); got != "following copy logs memory role" {
		t.Errorf("the order is %s", got)
	}
}

// TestStatusWatchErrors checks that errors go to stderr with --watch --json. stdout is only for the daemon's answers. It
// stays empty here, because no daemon runs.
func TestStatusWatchErrors(t *testing.T) {
	t.Parallel()
	var out, errs strings.Builder
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	c := statusCmd{JSON: true, Watch: true}
	if err := c.watch(ctx, filepath.Join(t.TempDir(), "feedback.json"), streams{out: &out, err: &errs}); err != nil {
		t.Fatal(err)
	}
	if out.Len() > 0 || !strings.Contains(errs.String(), "capture status:") {
		t.Errorf("stdout %q, stderr %q", out.String(), errs.String())
	}
}
