package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"capture/capture"
	"capture/internal/faultproxy"
	"capture/internal/pgserver"
	"capture/store"
	"capture/store/manifest"
)

// stopTimeout is the documented limit of a clean stop.
const stopTimeout = 2 * time.Second

func TestRun(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 20)
	d := start(t, url)
	d.ready()
	wantEqual(t, d.path, url)

	sql(t, url, `INSERT INTO votes (user_query) VALUES ('new')`,
		`UPDATE votes SET comment = 'ANOTHER OPINION' WHERE vote_id <= 3`,
		`DELETE FROM votes WHERE vote_id = 10`)
	eventually(t, "the changes in the file", d.holds(url))
	manifest, err := manifest.Read(d.path)
	if err != nil || manifest.Rows != 20 || manifest.WrittenBy != "capture 1.2.3-test" {
		t.Errorf("manifest %+v, %v", manifest, err)
	}

	// At the end, the file contains a change that was committed right before the signal.
	sql(t, url, `INSERT INTO votes (user_query) VALUES ('last')`)
	forced := run(t, d.dir, nil, "snapshot")
	d.signal(syscall.SIGTERM)
	if code := d.wait(stopTimeout); code != exitDone || forced.code != exitDone {
		t.Errorf("exit codes %d and %d", code, forced.code)
	}
	wantEqual(t, d.path, url)
	if _, held, err := store.ReadOwner(d.path); held || err != nil {
		t.Errorf("the lock is held after the end: %t, %v", held, err)
	}
	if got := d.stdout.String(); got != "" {
		t.Errorf("stdout has %q", got)
	}
	wantLog(t, filepath.Join(d.dir, "logs/usage/usage.log"), `"reason":"start"`, `"reason":"change"`)
	for _, text := range []string{"Question 1", "ANOTHER OPINION", "Answer"} {
		wantNowhere(t, d, text)
	}
}

// wantLog checks that a log consists of JSON lines and contains all texts in wants.
func wantLog(t *testing.T, path string, wants ...string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var all strings.Builder
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		var v map[string]any
		if err := json.Unmarshal(lines.Bytes(), &v); err != nil {
			t.Errorf("%s has %q: %v", path, lines.Text(), err)
		}
		all.WriteString(lines.Text() + "\n")
	}
	for _, want := range wants {
		if !strings.Contains(all.String(), want) {
			t.Errorf("%s lacks %q:\n%s", path, want, all.String())
		}
	}
}

// wantNowhere checks that a text is not in anything that a daemon printed or logged.
func wantNowhere(t *testing.T, d *daemon, text string) {
	t.Helper()
	places := map[string]string{"stdout": d.stdout.String(), "stderr": d.stderr.String()}
	err := filepath.WalkDir(filepath.Join(d.dir, "logs"), func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		content, err := os.ReadFile(path)
		places[path] = string(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for place, content := range places {
		if strings.Contains(content, text) {
			t.Errorf("%s has %q", place, text)
		}
	}
}

func TestStop(t *testing.T) {
	t.Parallel()
	t.Run("SIGINT", func(t *testing.T) {
		t.Parallel()
		d := start(t, votesDatabase(t, 1))
		d.ready()
		d.signal(syscall.SIGINT)
		if code := d.wait(stopTimeout); code != exitDone {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("between attempts to connect", func(t *testing.T) {
		t.Parallel()
		d := start(t, "postgres://nobody@127.0.0.1:1/none")
		d.status(func(s capture.Status) bool { return s.NextAttempt != nil })
		d.signal(syscall.SIGTERM)
		if code := d.wait(stopTimeout); code != exitDone {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("while the server is silent", func(t *testing.T) {
		t.Parallel()
		silent, err := net.Listen("tcp", "127.0.0.1:0") // the kernel accepts connections to it, but nobody answers
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		d := start(t, "postgres://nobody@"+silent.Addr().String()+"/none?sslmode=disable")
		d.address()
		d.signal(syscall.SIGTERM)
		if code := d.wait(stopTimeout); code != exitDone {
			t.Errorf("exit code %d", code)
		}
	})
	t.Run("during the first copy", func(t *testing.T) {
		t.Parallel()
		server := pgserver.Shared(t)
		url := votesDatabase(t, 20000)
		proxy, err := faultproxy.New(server.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer proxy.Close()
		proxy.Throttle(200_000, 0)
		d := start(t, strings.Replace(url, server.Addr(), proxy.Addr(), 1))
		d.status(func(s capture.Status) bool { return s.State == "copying" })
		d.signal(syscall.SIGTERM)
		if code := d.wait(stopTimeout); code != exitDone {
			t.Errorf("exit code %d", code)
		}
		if _, err := os.Stat(d.path); !os.IsNotExist(err) {
			t.Errorf("there is a file after half a copy (%v)", err)
		}
	})
}

func TestSignals(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 3)
	// With this delay, only the signal makes the daemon write the change to the file.
	d := start(t, url, "--flush-delay=1h")
	d.ready()
	sql(t, url, `INSERT INTO votes (user_query) VALUES ('forced')`)
	d.signal(syscall.SIGUSR1)
	eventually(t, "the forced flush", func() bool {
		content, err := os.ReadFile(d.path)
		return err == nil && strings.Contains(string(content), "forced")
	})
	wantEqual(t, d.path, url)

	usage := filepath.Join(d.dir, "logs/usage/usage.log")
	if err := os.Rename(usage, usage+".moved"); err != nil {
		t.Fatal(err)
	}
	d.signal(syscall.SIGHUP)
	eventually(t, "a new usage log", func() bool {
		content, err := os.ReadFile(usage)
		return err == nil && strings.Contains(string(content), "logs reopened")
	})
	d.signal(syscall.SIGTERM)
	if code := d.wait(stopTimeout); code != exitDone {
		t.Errorf("exit code %d", code)
	}
}

func TestSecondDaemon(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 1)
	first := start(t, url)
	first.ready()
	usage, err := os.ReadFile(filepath.Join(first.dir, "logs/usage/usage.log"))
	if err != nil {
		t.Fatal(err)
	}
	second := run(t, first.dir, []string{"DATABASE_URL=" + url}, "run", "--listen="+first.address())
	if second.code != exitFailed {
		t.Errorf("exit code %d", second.code)
	}
	for _, want := range []string{fmt.Sprintf("pid %d", first.cmd.Process.Pid), first.address(), hostname(), "feedback.json"} {
		if !strings.Contains(second.stderr, want) {
			t.Errorf("%q lacks %q", second.stderr, want)
		}
	}
	if !first.ready().Ready {
		t.Error("the first daemon is not ready any more")
	}
	now, err := os.ReadFile(filepath.Join(first.dir, "logs/usage/usage.log"))
	if err != nil || !strings.HasPrefix(string(now), string(usage)) {
		t.Errorf("the second daemon changed the log of the first (%v)", err)
	}

	elsewhere := run(t, t.TempDir(), []string{"DATABASE_URL=" + url}, "run", "--listen="+first.address())
	if elsewhere.code != exitFailed || !strings.Contains(elsewhere.stderr, "--listen") || !strings.Contains(elsewhere.stderr, "in use") {
		t.Errorf("with the port taken: %+v", elsewhere)
	}
}

// TestSecrets checks that no password, right or wrong, is in anything that capture prints, logs or serves.
func TestSecrets(t *testing.T) {
	t.Parallel()
	const right, wrong = "rIghtPassw0rd", "wr0ngPassw0rd"
	server := pgserver.ForTest(t, pgserver.Options{})
	admin := server.URL("postgres")
	sql(t, admin, "SET password_encryption = 'scram-sha-256'", `CREATE ROLE app LOGIN SUPERUSER PASSWORD '`+right+`'`, pgserver.VotesTable)
	if err := server.WriteFile("pg_hba.conf", []byte("host all app 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 trust\n")); err != nil {
		t.Fatal(err)
	}
	if err := server.Reload(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ name, password string }{{"right", right}, {"wrong", wrong}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := fmt.Sprintf("postgres://app:%s@%s/postgres?sslmode=disable", c.password, server.Addr())
			var d *daemon
			if c.name == "right" {
				// A password on the command line works, with a warning.
				d = startIn(t, t.TempDir(), nil, "run", "--listen=127.0.0.1:0", "--log-level=debug", "--database-url="+url)
				d.ready()
				eventually(t, "the warning", func() bool { return strings.Contains(d.stderr.String(), "PGPASSFILE") })
			} else {
				d = start(t, url, "--log-level=debug")
				s := d.status(func(s capture.Status) bool { return s.Error != "" })
				if !strings.Contains(s.Error, "password") {
					t.Errorf("the error is %q", s.Error)
				}
			}
			env := []string{"DATABASE_URL=" + url}
			for _, path := range []string{"/readyz", "/metrics", "/healthz", "/"} {
				if body, _ := get(t, "http://"+d.address()+path); strings.Contains(string(body), c.password) {
					t.Errorf("GET %s has the password", path)
				}
			}
			for _, args := range []string{"status", "status --json", "snapshot", "snapshot --output=other/x.json", "snapshot --output=-",
				"snapshot --table=missing --output=-", "run --listen=nowhere.invalid:1 --output=third/x.json"} {
				got := run(t, d.dir, env, strings.Fields(args)...)
				if strings.Contains(got.stdout+got.stderr, c.password) {
					t.Errorf("capture %s prints the password", args)
				}
			}
			d.signal(syscall.SIGTERM)
			d.wait(stopTimeout)
			wantNowhere(t, d, c.password)
		})
	}
}

// TestFlagDefaultsAreTheDaemons checks that the flags' defaults equal those of capture.DefaultConfig.
func TestFlagDefaultsAreTheDaemons(t *testing.T) {
	t.Parallel()
	var app cli
	if _, err := newParser(&app, streams{io.Discard, io.Discard}).Parse([]string{"run"}); err != nil {
		t.Fatal(err)
	}
	got, want := app.Run.daemonConfig(nil, "feedback.json"), capture.DefaultConfig()
	// Fields without a default are not compared.
	want.Table, want.WatchedDirs, want.LoadPrevious, want.ReloadDatabase = got.Table, got.WatchedDirs, nil, nil
	got.LoadPrevious, got.ReloadDatabase = nil, nil
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the flags' defaults are %+v, the daemon's %+v", got, want)
	}
}
