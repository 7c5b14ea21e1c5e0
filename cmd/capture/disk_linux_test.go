package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"capture/capture"
)

// attached has strace do to the running daemon what the options say, until heal. It is false where this machine lets
// nobody trace a process that runs already, as some do to all but root: then the faults of TestDiskFaults that need no
// strace, capture.TestWritesFail and the tests of package store stand in.
func (d *daemon) attached(options ...string) (heal func(), ok bool) {
	d.t.Helper()
	pid := strconv.Itoa(d.cmd.Process.Pid)
	cmd := exec.Command("strace", append([]string{"-f", "-o", os.DevNull, "-p", pid}, options...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); errors.Is(err, exec.ErrNotFound) {
		d.t.Fatal("there is no strace: run `make strace`")
	} else if err != nil {
		d.t.Fatal(err)
	}
	var said strings.Builder
	lines := bufio.NewScanner(stderr)
	for !ok && lines.Scan() {
		said.WriteString(lines.Text() + "\n")
		ok = strings.Contains(lines.Text(), " attached")
	}
	if !ok {
		_ = cmd.Wait()
		d.t.Logf("a running process can't be traced here: %s", said.String())
		return nil, false
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines.Scan() {
		}
	}()
	heal = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		<-read
		_ = cmd.Wait()
	})
	d.t.Cleanup(heal)
	return heal, true
}

// A diskFault is what happens to the volume of feedback.json.
type diskFault struct {
	what    string
	begin   func(d *daemon) (end func(), ok bool)
	reasons []string // in the words of health and of "capture snapshot"
}

// refusing is a volume that answers a system call with an error.
func refusing(what, syscall, errno string, reasons ...string) diskFault {
	return diskFault{what, func(d *daemon) (func(), bool) {
		options := []string{"-e", "trace=" + syscall, "-e", "inject=" + syscall + ":error=" + errno}
		if syscall == "openat" { // the daemon opens other files, too
			options = append(options, "-P", d.path+".tmp", "-P", "data/fallback/feedback.json.tmp")
		}
		return d.attached(options...)
	}, reasons}
}

// aside moves the folder away, puts something in its place, and has it back in the end.
func aside(what string, put func(folder string) error, reasons ...string) diskFault {
	return diskFault{what, func(d *daemon) (func(), bool) {
		folder := filepath.Dir(d.path)
		if err := errors.Join(os.Rename(folder, folder+".away"), put(folder)); err != nil {
			d.t.Fatal(err)
		}
		return func() {
			if err := errors.Join(os.RemoveAll(folder), os.Rename(folder+".away", folder)); err != nil {
				d.t.Fatal(err)
			}
		}, true
	}, reasons}
}

// TestDiskFaults: for each thing that happens to volumes the old file stays, /readyz is 503 and says why, so does
// "capture snapshot", which exits 1; and all is well again by itself as soon as the volume is.
func TestDiskFaults(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 5)
	d := start(t, url)
	d.ready()
	ready := "http://" + d.address() + "/readyz"
	for _, fault := range []diskFault{
		refusing("the device fails", "fsync", "EIO", "input/output error", "the device fails", ".tmp"),
		refusing("full at fsync", "fsync", "ENOSPC", "no space left", "free some space"),
		refusing("beyond the quota", "fsync", "EDQUOT", "quota", "free some space"),
		refusing("read-only at the rename", "renameat", "EROFS", "read-only", "mount that volume writable"),
		refusing("no permission", "openat", "EACCES", "permission denied", "let user"),
		refusing("no inode left", "openat", "ENOSPC", "no space left", "inodes"),
		aside("a file for the folder", func(folder string) error { return os.WriteFile(folder, nil, 0o644) }, "data/fallback", "not a directory"),
		aside("a dangling link for the folder", func(folder string) error { return os.Symlink("nowhere", folder) }, "data/fallback", "not a directory"),
	} {
		end, ok := fault.begin(d)
		if !ok {
			continue
		}
		old := d.path
		if _, err := os.Lstat(old); err != nil {
			old = strings.Replace(old, "/fallback/", "/fallback.away/", 1)
		}
		before, err := os.ReadFile(old)
		if err != nil {
			t.Fatal(err)
		}
		sql(t, url, `INSERT INTO votes (user_query) VALUES ('while it is ill')`)
		said := ""
		eventually(t, fault.what+": /readyz is 503", func() bool {
			body, code := get(t, ready)
			var s capture.Status
			if err := json.Unmarshal(body, &s); err != nil {
				t.Fatal(err)
			}
			said = s.File.Error
			return code == http.StatusServiceUnavailable && !s.Checks[1].OK && s.Checks[1].Detail == said && said != ""
		})
		forced := run(t, d.dir, nil, "snapshot", "--output", old) // whose lock file tells where the daemon is
		for _, reason := range fault.reasons {
			if !strings.Contains(said, reason) || !strings.Contains(forced.stderr, reason) {
				t.Errorf("%s: %q is not in the words of /readyz or of capture snapshot: %s; %+v", fault.what, reason, said, forced)
			}
		}
		if forced.code != exitFailed || forced.stdout != "" {
			t.Errorf("%s: capture snapshot: %+v", fault.what, forced)
		}
		if after, err := os.ReadFile(old); err != nil || string(after) != string(before) {
			t.Errorf("%s: the old file has changed: %v", fault.what, err)
		}
		end()
		d.ready()
		eventually(t, fault.what+": the file holds the table", d.holds(url))
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(d.path), "*.tmp")); left != nil {
			t.Errorf("%s: left over: %v", fault.what, left)
		}
	}
}

// holds says whether the file is the table.
func (d *daemon) holds(url string) func() bool {
	return func() bool {
		content, err := os.ReadFile(d.path)
		return err == nil && string(compact(content)) == table(d.t, url)
	}
}

// TestFolderReplaced: an empty folder stands where the old one was, with a second daemon in it. There are never two writers:
// the first says who keeps the file now, and goes on when that one is gone.
func TestFolderReplaced(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 5)
	first := start(t, url)
	first.ready()
	ready := "http://" + first.address() + "/readyz"
	folder := filepath.Dir(first.path)
	if err := errors.Join(os.Rename(folder, folder+".away"), os.Mkdir(folder, 0o755)); err != nil {
		t.Fatal(err)
	}
	second := startIn(t, t.TempDir(), []string{"DATABASE_URL=" + url}, "run", "--listen=127.0.0.1:0", "--output="+first.path)
	second.path = first.path
	second.ready()
	sql(t, url, `INSERT INTO votes (user_query) VALUES ('whose is it')`)
	eventually(t, "the first says who keeps the file", func() bool {
		body, code := get(t, ready)
		return code == http.StatusServiceUnavailable && strings.Contains(string(body), "pid "+strconv.Itoa(second.cmd.Process.Pid))
	})
	eventually(t, "the second goes on", second.holds(url))
	second.signal(syscall.SIGTERM)
	if code := second.wait(patience); code != exitDone {
		t.Errorf("the second's exit code is %d", code)
	}
	sql(t, url, `INSERT INTO votes (user_query) VALUES ('the first again')`)
	first.ready()
	eventually(t, "the first goes on", first.holds(url))
}

// TestSlowVolume: a volume that takes seconds for each fsync is no reason for alarm, and holds up the file alone; one that
// hangs is said, and the file catches up when it moves again.
func TestSlowVolume(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 5)
	d := start(t, url)
	d.ready()
	change := func(delay string) (end func()) {
		end, ok := d.attached("-e", "trace=fsync", "-e", "inject=fsync:delay_enter="+delay)
		if !ok {
			return nil
		}
		before, err := os.ReadFile(d.path)
		if err != nil {
			t.Fatal(err)
		}
		sql(t, url, `INSERT INTO votes (user_query) VALUES ('slow')`)
		d.status(func(s capture.Status) bool { return !s.File.UpToDate }) // it is in memory
		if after, err := os.ReadFile(d.path); err != nil || string(after) != string(before) {
			t.Errorf("the file has changed while the volume does not answer: %v", err)
		}
		return end
	}
	end := change("1s")
	if end == nil {
		return
	}
	for !d.holds(url)() {
		if body, code := get(t, "http://"+d.address()+"/readyz"); code != http.StatusOK {
			t.Fatalf("/readyz: %d %s", code, body)
		}
	}
	end()
	d.status(func(s capture.Status) bool { return s.File.UpToDate })
	end = change("300s")
	d.status(func(s capture.Status) bool {
		return !s.Ready && strings.Contains(s.Checks[1].Detail, "the volume is slow or hangs")
	})
	sql(t, url, `INSERT INTO votes (user_query) VALUES ('in the stream all the same')`)
	d.status(func(s capture.Status) bool { return s.Rows == 8 && s.Checks[0].OK })
	end()
	d.ready()
	eventually(t, "the file holds the table", d.holds(url))
}

// TestLogVolumes: log volumes that are full, read-only or failing stop nothing: the file follows, /readyz is 200 and has
// the reason among its checks, stderr has the lines; and the logs go on when they can.
func TestLogVolumes(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 5)
	d := start(t, url)
	d.ready()
	usage := filepath.Join(d.dir, "logs/usage/usage.log")
	for errno, reason := range map[string]string{"ENOSPC": "no space left", "EROFS": "read-only", "EIO": "input/output error"} {
		end, ok := d.attached("-P", usage, "-e", "trace=write", "-e", "inject=write:error="+errno)
		if !ok {
			return
		}
		sql(t, url, `INSERT INTO votes (user_query) VALUES ('while the log is full')`)
		s := d.status(func(s capture.Status) bool { return !s.Checks[2].OK })
		if !s.Ready || s.Checks[2].Name != "logs" || !strings.Contains(s.Checks[2].Detail, reason) {
			t.Errorf("%s: /readyz says %+v", errno, s.Checks)
		}
		eventually(t, "the file holds the table", d.holds(url))
		if got := run(t, d.dir, nil, "snapshot"); got.code != exitDone {
			t.Errorf("%s: capture snapshot: %+v", errno, got)
		}
		eventually(t, "stderr says it", func() bool { return strings.Contains(d.stderr.String(), reason) })
		end()
		sql(t, url, `INSERT INTO votes (user_query) VALUES ('when it is well again')`)
		d.status(func(s capture.Status) bool { return s.Checks[2].OK })
	}
}
