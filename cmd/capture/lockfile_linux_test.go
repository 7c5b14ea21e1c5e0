package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestTokenGoesToNoAddressOfOthers(t *testing.T) {
	t.Parallel()
	var stolen atomic.Int32
	thief := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			stolen.Add(1)
		}
	}))
	defer thief.Close()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	nowhere := closed.Addr().String()
	closed.Close()
	dir := t.TempDir()
	path, token := filepath.Join(dir, "data/fallback/feedback.json"), filepath.Join(dir, "token")
	if err := os.WriteFile(token, []byte("a-secret-of-20-bytes"), 0o600); err != nil {
		t.Fatal(err)
	}
	here := hostname()
	for _, c := range []struct {
		what, host, listen string
		mode               os.FileMode
		uid                int
		word               string
	}{
		{"a lock file that others may write", here, thief.Listener.Addr().String(), 0o666, 0, "another user may write the lock file"},
		{"a lock file of another user", here, thief.Listener.Addr().String(), 0o600, 65534, "another user may write the lock file"},
		{"an address of another machine", here, "203.0.113.9:80", 0o600, 0, "not this machine"},
		{"a host that is not this one", "evil.example", "0.0.0.0:8080", 0o600, 0, "not this machine"},
		{"a name that only leads here", here, "localhost.evil.example:80", 0o600, 0, "not this machine"},
		{"what is no address", here, `\u001b[2J`, 0o600, 0, "not this machine"},
	} {
		if c.uid != 0 && os.Geteuid() != 0 {
			continue
		}
		lock := plantLock(t, path, c.host, c.listen)
		if err := os.Chmod(lock.Name(), c.mode); err != nil {
			t.Fatal(err)
		}
		if c.uid != 0 {
			if err := os.Chown(lock.Name(), c.uid, c.uid); err != nil {
				t.Fatal(err)
			}
		}
		for _, args := range [][]string{{"snapshot", "--token-file=" + token}, {"status"}} {
			got := run(t, dir, nil, append(args, "--listen="+nowhere)...)
			if got.code != exitFailed || !strings.Contains(got.stderr, c.word) || strings.Contains(got.stderr, "\x1b") {
				t.Errorf("%s, %s: %+v", c.what, args[0], got)
			}
		}
		if c.uid != 0 {
			os.Chown(lock.Name(), 0, 0)
		}
		lock.Close()
		os.Remove(lock.Name())
	}
	if n := stolen.Load(); n > 0 {
		t.Errorf("the token was sent %d times", n)
	}
}

func TestUnreadableLockFileLeadsToListen(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 3)
	d := start(t, url)
	d.ready()
	address := d.address()
	// If other users can write the lock file, a command does not trust the address in it. The command uses --listen instead,
	// just as if it could not read the lock file.
	if err := os.Chmod(d.path+".lock", 0o622); err != nil {
		t.Fatal(err)
	}
	if got := run(t, d.dir, nil, "status", "--listen="+address); got.code != exitDone {
		t.Errorf("status: %+v", got)
	}
	if got := run(t, d.dir, nil, "snapshot", "--listen="+address); got.code != exitDone || !strings.Contains(got.stdout, "3 rows") {
		t.Errorf("snapshot: %+v", got)
	}
	if got := run(t, d.dir, []string{"DATABASE_URL=" + url}, "verify", "--listen="+address); got.code != exitDone {
		t.Errorf("verify: %+v", got)
	}
}

// TestSignalEndsReadingOfPipe checks that SIGTERM ends a command that waits for a pipe.
func TestSignalEndsReadingOfPipe(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(path, 0o600); err != nil {
		t.Fatal(err)
	}
	d := startIn(t, dir, nil, "verify", path)
	// O_NONBLOCK makes the open fail with ENXIO until another process has opened the FIFO for reading. So the loop ends when
	// the command has opened the pipe.
	writer := -1
	for begun := time.Now(); writer < 0; time.Sleep(10 * time.Millisecond) {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		switch {
		case err == nil:
			writer = fd
		case err != unix.ENXIO || time.Since(begun) > time.Minute:
			t.Fatalf("open the pipe: %v", err)
		}
	}
	defer unix.Close(writer)
	d.signal(unix.SIGTERM)
	if code := d.wait(10 * time.Second); code != exitFailed || !strings.Contains(d.stderr.String(), "interrupted") || !strings.Contains(d.stderr.String(), "is a named pipe: waiting for a program that writes") {
		t.Errorf("exit %d", code)
	}
}

// TestPlantedFileIsNotServed checks that the daemon does not serve a link in the place of feedback.json, whatever the link
// leads to. The next Write replaces the link.
func TestPlantedFileIsNotServed(t *testing.T) {
	t.Parallel()
	d := start(t, votesDatabase(t, 3))
	d.ready()
	address, secret := d.address(), filepath.Join(d.dir, "secret")
	if err := os.WriteFile(secret, []byte("the token"), 0o600); err != nil {
		t.Fatal(err)
	}
	for what, plant := range map[string]func() error{
		"a link":      func() error { return os.Symlink(secret, d.path) },
		"a hard link": func() error { return os.Link(secret, d.path) },
	} {
		os.Remove(d.path)
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if body, code := get(t, "http://"+address+"/feedback.json"); code != http.StatusServiceUnavailable || strings.Contains(string(body), "token") {
			t.Errorf("%s is served: %d %s", what, code, body)
		}
		if got := run(t, d.dir, nil, "snapshot"); got.code != exitDone {
			t.Errorf("%s: the next write: %+v", what, got)
		}
		if body, code := get(t, "http://"+address+"/feedback.json"); code != http.StatusOK || strings.Contains(string(body), "token") {
			t.Errorf("%s, after the next write: %d %s", what, code, body)
		}
		if content, err := os.ReadFile(secret); err != nil || string(content) != "the token" {
			t.Errorf("%s: what it leads to is now %q, %v", what, content, err)
		}
	}
}
