package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"capture/capture"
	"capture/internal/statefile"
	"capture/internal/volume"
)

// TestStatusFitsTheScreen checks that every status fits on the screen, and that the failing checks come first.
func TestStatusFitsTheScreen(t *testing.T) {
	t.Parallel()
	now := time.Now()
	long := strings.Repeat("the server does not answer, and this is a long text about it; ", 4)
	full := capture.Status{
		Version: "1.2.3", Host: "a-host", Started: now.Add(-time.Hour), State: "following", Ready: true,
		Table: "public.votes", Database: "db1:5432/rag", SystemID: "7301", ServerVersion: "18.1", Source: "poll", SourceNote: long,
		Rows: 1234567, Bytes: 3 << 30, LSN: "0/1B3C4D8", CommitTime: &now, LastContact: &now, RetainedWAL: 1 << 20,
		LastRead: &capture.ReadStatus{Ended: now, Whole: true, Reason: "the server was restarted", Rows: 5, Bytes: 5, MS: 5},
		Memory:   &capture.MemoryStatus{Limit: 1 << 30, Resident: 1 << 30, Spilled: 1 << 30},
		File:     capture.FileStatus{Path: "/app/data/fallback/feedback.json", Written: &now, Rows: 1234567, Bytes: 3 << 30, LSN: "0/1B3C000"},
		Kept:     capture.KeptStatus{States: 31, Bytes: 9 << 30, Oldest: &now},
		Copies:   &capture.CopiesStatus{URL: "s3://bucket/feedback", Copied: &now, Proven: &now, Rows: 5, Bytes: 5, Uploading: &capture.UploadStatus{Began: now, Bytes: 4, Total: 5}},
		Volumes:  []volume.Usage{{Name: "fallback"}, {Name: "usage-logs"}, {Name: "error-logs"}},
	}
	for _, wrong := range [][]string{
		nil, {"logs"}, {"copy"}, {"loss"}, {"file"}, {"following"}, {"following", "file", "logs"}, {"following", "file", "logs", "copy", "loss", "volume fallback"},
	} {
		s := full
		for _, name := range []string{"role", "following", "file", "logs", "copy", "loss", "volume fallback"} {
			failing := strings.Contains(strings.Join(wrong, ","), name) || name == "role"
			s.Checks = append(s.Checks, capture.Check{Name: name, OK: !failing, Detail: name + " says this"})
		}
		for _, size := range []screen{{80, 24}, {40, 24}, {80, 12}, {200, 50}} {
			for _, p := range []palette{{}, {"\x1b[32m", "\x1b[31m", "\x1b[2m", "\x1b[1m", "\x1b[0m"}} {
				text := statusText(s, "http://127.0.0.1:8080/", p, size, now)
				if n := size.height(text); n >= size.lines {
					t.Errorf("%v: %d lines on a screen of %v:\n%s", wrong, n, size, text)
				}
				head, _, _ := strings.Cut(text, "\n\n")
				for _, name := range wrong {
					if !strings.Contains(head, name+" says this") {
						t.Errorf("%v: %s is not among the first lines:\n%s", wrong, name, text)
					}
				}
				if len(wrong) > 0 && strings.Index(head, wrong[0]+" says") > strings.Index(head, "role says") {
					t.Errorf("%v: advice comes first:\n%s", wrong, text)
				}
			}
		}
	}
	s := full
	s.Checks = []capture.Check{{Name: "following", Detail: long + long}, {Name: "file", Detail: long}}
	if text := (screen{40, 10}).clip(statusText(s, "", palette{}, screen{40, 10}, now)); (screen{40, 10}).height(text) >= 10 {
		t.Errorf("not clipped:\n%s", text)
	}
}

func TestProgressText(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		at   statefile.Progress
		took time.Duration
		want string
	}{
		{statefile.Progress{Rows: 10}, 0, ", 10 rows"},
		{statefile.Progress{Rows: 10, TotalRows: 40}, 0, ", 25 %, 10 rows"},
		{statefile.Progress{}, 5 * time.Second, ", 5.0 s"},
		{statefile.Progress{Rows: 10, Total: 500}, 12 * time.Second, ", 10 rows, 12 s"}, // a step that waits after the file has been read
		{statefile.Progress{Rows: 20_000, TotalRows: 50_000}, 4 * time.Second, ", 40 %, 20,000 rows, 5,000 rows/s, 6.0 s left"},
		{statefile.Progress{Rows: 20_000, Bytes: 400, Total: 1000}, 4 * time.Second, ", 40 %, 20,000 rows, 5,000 rows/s, 6.0 s left"},
		{statefile.Progress{Bytes: 4 << 20, Total: 8 << 20}, 2 * time.Second, ", 50 %, 2.0 MB/s, 2.0 s left"},
		{statefile.Progress{Rows: 1000, Bytes: 4 << 20}, 2 * time.Second, ", 1,000 rows, 500 rows/s"},
		{statefile.Progress{Rows: 60, TotalRows: 50}, 2 * time.Second, ", 100 %, 60 rows, 30 rows/s"}, // the row count from the server's statistics is too low
	} {
		if got := progressText(c.at, c.took); got != c.want {
			t.Errorf("%+v after %s: %q, want %q", c.at, c.took, got, c.want)
		}
	}
}

// TestNoProgressWithoutTerminal checks that no progress is shown without a terminal. The output may be a log, or the mail of
// a cron job.
func TestNoProgressWithoutTerminal(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	p := newProgress(&b, "capture verify")
	p.last = time.Time{}
	p.show(statefile.Progress{Doing: "reading the file", Rows: 10})
	p.clear()
	if b.Len() > 0 {
		t.Errorf("%q", b.String())
	}
}

// TestInterrupted checks that an interrupted command reports only the interruption, and no error of the operation that it
// waited for.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	accepted := make(chan net.Conn, 10)
	go func() {
		for {
			c, err := silent.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	url := fmt.Sprintf("postgres://nobody@%s/none?sslmode=disable", silent.Addr())
	for _, args := range []string{"doctor", "setup", "setup --print", "teardown", "snapshot", "snapshot --output -"} {
		cmd := prepare(t.Context(), t.TempDir(), []string{"DATABASE_URL=" + url}, strings.Fields(args)...)
		var stdout, stderr bytes.Buffer
		cmd.Stdout, cmd.Stderr = &stdout, &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		defer (<-accepted).Close()
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		command := strings.Fields(args)[0]
		if stdout.Len() > 0 || stderr.String() != "capture "+command+": interrupted\n" || cmd.ProcessState.ExitCode() != exitFailed {
			t.Errorf("%s: exit code %d, %q, %q", args, cmd.ProcessState.ExitCode(), stdout.String(), stderr.String())
		}
	}
}
