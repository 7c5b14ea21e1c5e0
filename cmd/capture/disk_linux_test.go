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
	"time"

	"capture/capture"
	"capture/internal/busy"
)

// needStrace skips the test on a machine that does not let this user trace a program that it starts.
func needStrace(t *testing.T) {
	t.Helper()
	if out, err := exec.Command("strace", "-f", "-o", os.DevNull, "true").CombinedOutput(); errors.Is(err, exec.ErrNotFound) {
		t.Fatal("strace is not installed: run `make strace`")
	} else if err != nil {
		t.Skipf("this machine does not let strace trace: %v %s", err, out)
	}
}

// mustAttachStrace is like attachStrace, but skips the test if strace cannot attach.
func (d *daemon) mustAttachStrace(options ...string) (detach func()) {
	d.t.Helper()
	detach, ok := d.attachStrace(options...)
	if !ok {
		d.t.Skip("this machine does not let strace attach (kernel.yama.ptrace_scope)")
	}
	return detach
}

// attachStrace attaches strace to the running daemon until detach is called. The result ok is false on a machine that does not
// let this user trace a running process. On such a machine, TestDiskFaults tests only the faults that need no strace. The tests
// of package store and capture.TestWritesFail test similar faults without strace.
func (d *daemon) attachStrace(options ...string) (detach func(), ok bool) {
	d.t.Helper()
	pid := strconv.Itoa(d.cmd.Process.Pid)
	cmd := exec.Command("strace", append([]string{"-f", "-o", os.DevNull, "-p", pid}, options...)...)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		d.t.Fatal(err)
	}
	if err := cmd.Start(); errors.Is(err, exec.ErrNotFound) {
		d.t.Fatal("strace is not installed: run `make strace`")
	} else if err != nil {
		d.t.Fatal(err)
	}
	var printed strings.Builder
	lines := bufio.NewScanner(stderr)
	for !ok && lines.Scan() {
		printed.WriteString(lines.Text() + "\n")
		ok = strings.Contains(lines.Text(), " attached")
	}
	if !ok {
		_ = cmd.Wait()
		d.t.Logf("this machine does not let strace attach: %s", printed.String())
		return nil, false
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines.Scan() {
		}
	}()
	detach = sync.OnceFunc(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-read:
		case <-time.After(busy.Limit(5 * time.Second)): // some versions of strace hang after a process of many threads was killed
			_ = cmd.Process.Kill()
			<-read
		}
		_ = cmd.Wait()
	})
	d.t.Cleanup(detach)
	return detach, true
}

// A diskFault is a fault of the volume with feedback.json.
type diskFault struct {
	what    string
	begin   func(d *daemon) (end func(), ok bool)
	reasons []string // texts that /readyz and "capture snapshot" must contain
}

// failSyscall returns a fault that makes a system call fail with an error.
func failSyscall(what, syscall, errno string, reasons ...string) diskFault {
	return diskFault{what, func(d *daemon) (func(), bool) {
		options := []string{"-e", "trace=" + syscall, "-e", "inject=" + syscall + ":error=" + errno}
		if syscall == "openat" { // the daemon also opens other files, so openat fails only for the temporary file
			options = append(options, "-P", d.path+".tmp", "-P", "data/fallback/feedback.json.tmp")
		}
		return d.attachStrace(options...)
	}, reasons}
}

// replaceFolder returns a fault that moves the folder away and puts something else in its place.
func replaceFolder(what string, put func(folder string) error, reasons ...string) diskFault {
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

// TestDiskFaults checks each fault of a volume. The old file stays, /readyz answers 503 with the reason, and "capture snapshot"
// prints the reason and exits with 1. When the volume recovers, capture recovers, too.
func TestDiskFaults(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for retries after many faults")
	}
	t.Parallel()
	url := votesDatabase(t, 5)
	d := start(t, url)
	d.ready()
	ready := "http://" + d.address() + "/readyz"
	for _, fault := range []diskFault{
		failSyscall("the device fails", "fsync", "EIO", "input/output error", "the device fails", ".tmp"),
		failSyscall("full at fsync", "fsync", "ENOSPC", "no space left", "free some space"),
		failSyscall("beyond the quota", "fsync", "EDQUOT", "quota", "free some space"),
		failSyscall("read-only at the rename", "renameat", "EROFS", "read-only", "mount that volume writable"),
		failSyscall("no permission", "openat", "EACCES", "permission denied", "let user"),
		failSyscall("no inode left", "openat", "ENOSPC", "no space left", "inodes"),
		replaceFolder("a file for the folder", func(folder string) error { return os.WriteFile(folder, nil, 0o644) }, "data/fallback", "not a directory"),
		replaceFolder("a dangling link for the folder", func(folder string) error { return os.Symlink("nowhere", folder) }, "data/fallback", "not a directory"),
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
		sql(t, url, `INSERT INTO votes (user_query) VALUES ('during the fault')`)
		reported := ""
		eventually(t, fault.what+": /readyz is 503", func() bool {
			body, code := get(t, ready)
			var s capture.Status
			if err := json.Unmarshal(body, &s); err != nil {
				t.Fatal(err)
			}
			reported = s.File.Error
			return code == http.StatusServiceUnavailable && !s.Checks[1].OK && s.Checks[1].Detail == reported && reported != ""
		})
		forced := run(t, d.dir, nil, "snapshot", "--output", old) // the command finds the daemon by the lock file beside the old file
		for _, reason := range fault.reasons {
			if !strings.Contains(reported, reason) || !strings.Contains(forced.stderr, reason) {
				t.Errorf("%s: %q is missing in /readyz (%s) or capture snapshot (%+v)", fault.what, reason, reported, forced)
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
		// A temporary file may exist for a short time, because capture compresses a kept state into a temporary file once an hour.
		eventually(t, fault.what+": no temporary file is left over", func() bool {
			left, _ := filepath.Glob(filepath.Join(filepath.Dir(d.path), "*.tmp"))
			return left == nil
		})
	}
}

// TestFolderReplaced replaces the folder by an empty folder, in which a second daemon starts. There are never two writers: the
// first daemon reports which process has the lock, and continues after the second daemon has exited.
func TestFolderReplaced(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for retries")
	}
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
	eventually(t, "the first daemon reports who has the lock", func() bool {
		body, code := get(t, ready)
		return code == http.StatusServiceUnavailable && strings.Contains(string(body), "pid "+strconv.Itoa(second.cmd.Process.Pid))
	})
	eventually(t, "the second daemon follows the table", second.holds(url))
	second.signal(syscall.SIGTERM)
	if code := second.wait(waitTimeout); code != exitDone {
		t.Errorf("the second's exit code is %d", code)
	}
	sql(t, url, `INSERT INTO votes (user_query) VALUES ('the first again')`)
	first.ready()
	eventually(t, "the first daemon follows the table", first.holds(url))
}

// TestStopWithFailingVolume checks that the exit code and the log show that the last changes are not in the file.
func TestStopWithFailingVolume(t *testing.T) {
	t.Parallel()
	url := votesDatabase(t, 5)
	d := start(t, url)
	d.ready()
	inTheWay := filepath.Join(filepath.Dir(d.path), "feedback.manifest.json.tmp", "x")
	// Repeat MkdirAll until it succeeds. It fails while capture writes a new manifest to a file with the name of the folder.
	eventually(t, "a folder is in the way", func() bool { return os.MkdirAll(inTheWay, 0o755) == nil })
	sql(t, url, `INSERT INTO votes (user_query) VALUES ('not written')`)
	d.status(func(s capture.Status) bool { return s.File.Error != "" })
	d.signal(syscall.SIGTERM)
	if code := d.wait(stopTimeout); code != exitFailed || !strings.Contains(d.stderr.String(), "the last flush failed") {
		t.Errorf("exit code %d: %s", code, d.stderr.String())
	}
}

// TestSlowVolume checks that a volume on which each fsync takes two seconds causes no alarm and delays only the file. A volume
// that hangs is reported. When it recovers, the file catches up with the table.
func TestSlowVolume(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a slow volume")
	}
	t.Parallel()
	url := votesDatabase(t, 5)
	d := start(t, url)
	d.ready()
	change := func(delay string) (end func()) {
		end = d.mustAttachStrace("-e", "trace=fsync", "-e", "inject=fsync:delay_enter="+delay)
		before, err := os.ReadFile(d.path)
		if err != nil {
			t.Fatal(err)
		}
		sql(t, url, `INSERT INTO votes (user_query) VALUES ('slow')`)
		d.status(func(s capture.Status) bool { return !s.File.UpToDate }) // wait until the change is in memory, but not yet in the file
		if after, err := os.ReadFile(d.path); err != nil || string(after) != string(before) {
			t.Errorf("the file has changed although the volume hangs (%v)", err)
		}
		return end
	}
	end := change("2s")
	address, isDone := d.address(), d.holds(url)
	eventually(t, "the file holds the table", func() bool {
		if body, code := get(t, "http://"+address+"/readyz"); code != http.StatusOK {
			t.Fatalf("/readyz: %d %s", code, body)
		}
		return isDone()
	})
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

// TestLogVolumes checks that capture continues if the volume of its logs is full, read-only or failing. The file follows the
// table, /readyz answers 200 with the reason in its checks, stderr has the log lines, and the log files continue when the
// volume recovers.
func TestLogVolumes(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for retries after many faults")
	}
	t.Parallel()
	url := votesDatabase(t, 5)
	d := start(t, url)
	d.ready()
	usage := filepath.Join(d.dir, "logs/usage/usage.log")
	for errno, reason := range map[string]string{"ENOSPC": "no space left", "EROFS": "read-only", "EIO": "input/output error"} {
		end := d.mustAttachStrace("-P", usage, "-e", "trace=write", "-e", "inject=write:error="+errno)
		sql(t, url, `INSERT INTO votes (user_query) VALUES ('while the log is full')`)
		s := d.status(func(s capture.Status) bool { return !s.Checks[2].OK })
		if !s.Ready || s.Checks[2].Name != "logs" || !strings.Contains(s.Checks[2].Detail, reason) {
			t.Errorf("%s: /readyz says %+v", errno, s.Checks)
		}
		eventually(t, "the file holds the table", d.holds(url))
		if got := run(t, d.dir, nil, "snapshot"); got.code != exitDone {
			t.Errorf("%s: capture snapshot: %+v", errno, got)
		}
		eventually(t, "the reason on stderr", func() bool { return strings.Contains(d.stderr.String(), reason) })
		end()
		sql(t, url, `INSERT INTO votes (user_query) VALUES ('after the fault')`)
		d.status(func(s capture.Status) bool { return s.Checks[2].OK })
	}
}
