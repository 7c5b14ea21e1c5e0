package capture

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	osexec "os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/busy"
	"capture/internal/logfile"
	"capture/store"
)

// Environment variables of a child. A child is a second process of this test program, and runs a daemon. Tests that kill,
// freeze or starve a daemon need a child.
const (
	childURL    = "CAPTURE_TEST_CHILD_URL"
	childPath   = "CAPTURE_TEST_CHILD_PATH"
	childMounts = "CAPTURE_TEST_CHILD_MOUNTS" // folder at which the child mounts a small volume
	childLogs   = "CAPTURE_TEST_CHILD_LOGS"   // folder of the child's logs, if any
)

// childLogMB is the largest size of a child's log file, in MB. childLogBackups is the number of older log files that the
// child keeps.
const childLogMB, childLogBackups = 1, 2

func init() {
	if url := os.Getenv(childURL); url != "" {
		os.Exit(runChild(url, os.Getenv(childPath)))
	}
}

// runChild runs a daemon until SIGTERM. It prints "ready" on stdout when the daemon becomes ready, and the reason when the
// daemon is no longer ready.
func runChild(url, path string) int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	dir := os.Getenv(childMounts)
	if dir != "" {
		if err := mountSmall(dir); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	file, err := store.Open(path, store.Owner{PID: os.Getpid()})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	defer file.Close()
	cfg, err := childConfig(url)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	if logs := os.Getenv(childLogs); logs != "" {
		l, err := logfile.Open(logfile.Config{
			Usage: filepath.Join(logs, "usage.log"), Error: filepath.Join(logs, "error.log"), MaxSizeMB: childLogMB, MaxBackups: childLogBackups, Stderr: io.Discard,
		})
		if err != nil {
			fmt.Println(err)
			return 1
		}
		defer l.Close()
		cfg.Logger, cfg.LogHealth = l.Logger(), l.Err
	}
	d, err := New(cfg, file)
	if err != nil {
		fmt.Println(err)
		return 1
	}
	go obey(ctx, d, dir)
	said := ""
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			word := "ready"
			if s := d.Status(); !s.Ready {
				word = strings.ReplaceAll(fmt.Sprintf("unwell: %+v", s.Checks[:2]), "\n", " ")
			}
			if word != said {
				said = word
				fmt.Println(word)
			}
		}
	})
	err = d.Run(ctx)
	stop()
	wg.Wait()
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// obey runs the commands on stdin, one per line: "snapshot" forces a snapshot, and any other line tells remount how to
// change the volume at dir.
func obey(ctx context.Context, d *Daemon, dir string) {
	for s := bufio.NewScanner(os.Stdin); s.Scan(); {
		if s.Text() != "snapshot" {
			if err := remount(dir, s.Text()); err != nil {
				fmt.Println("remount:", err)
			}
			continue
		}
		ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
		_, err := d.Snapshot(ctx)
		cancel()
		if err != nil {
			fmt.Println("snapshot:", strings.ReplaceAll(err.Error(), "\n", " "))
			continue
		}
		fmt.Printf("snapshot: done, %d goroutines, %d bytes live\n", runtime.NumGoroutine(), liveHeap())
	}
}

func childConfig(url string) (Config, error) {
	cfg, err := parseConfig(url)
	if err != nil {
		return cfg, err
	}
	cfg.Logger = hclog.New(&hclog.LoggerOptions{Output: os.Stderr, JSONFormat: true, Level: hclog.Warn})
	if rate, err := strconv.ParseInt(os.Getenv("CAPTURE_TEST_CHILD_RATE"), 10, 64); err == nil {
		cfg.CopyRate = rate
	}
	if n, err := strconv.Atoi(os.Getenv("CAPTURE_TEST_CHILD_CONNECTIONS")); err == nil {
		cfg.copying.Connections = n
	}
	if silence, err := time.ParseDuration(os.Getenv("CAPTURE_TEST_SILENCE")); err == nil {
		cfg.timeouts.Idle, cfg.timeouts.Ping = silence, silence/5
	}
	if frozen, err := time.ParseDuration(os.Getenv("CAPTURE_TEST_FROZEN_AFTER")); err == nil {
		cfg.timeouts.FrozenClient = frozen
	}
	return cfg, nil
}

// child is a running child process.
type child struct {
	t     testing.TB
	cmd   *osexec.Cmd
	stdin io.Writer
	path  string
	lines chan string // lines of the child's stdout; closed when the child ends
	log   *syncBuffer
}

func startChild(t testing.TB, url, path string, env ...string) *child {
	t.Helper()
	return startChildIn(t, url, path, nil, env...)
}

func startChildIn(t testing.TB, url, path string, attr *syscall.SysProcAttr, env ...string) *child {
	t.Helper()
	c := &child{t: t, path: path, lines: make(chan string, 1000), log: &syncBuffer{}}
	c.cmd = osexec.Command(os.Args[0])
	c.cmd.Env = append(os.Environ(), append(env, childURL+"="+url, childPath+"="+path)...)
	c.cmd.Stderr = c.log
	c.cmd.SysProcAttr = attr
	var err error
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(c.lines)
		s := bufio.NewScanner(out)
		for s.Scan() {
			c.lines <- s.Text()
		}
	}()
	t.Cleanup(func() {
		_ = c.cmd.Process.Signal(syscall.SIGCONT)
		c.kill()
		if t.Failed() {
			t.Logf("the child's log:\n%s", c.log)
		}
	})
	return c
}

// kill ends the process with SIGKILL, unless it has ended.
func (c *child) kill() {
	if c.cmd.ProcessState == nil {
		_ = c.cmd.Process.Kill()
		for range c.lines {
		}
		_ = c.cmd.Wait()
	}
}

// says waits until the child has printed a line with these words.
func (c *child) says(words ...string) {
	c.t.Helper()
	limit := busy.Limit(patience)
	deadline := time.After(limit)
	var last string
	for {
		select {
		case line, ok := <-c.lines:
			if !ok {
				c.t.Fatalf("it ended without a line with %q; the last: %s", words, last)
			}
			last = line
			if all(line, words) {
				return
			}
		case <-deadline:
			c.t.Fatalf("no line with %q after %s; the last: %s", words, limit, last)
		}
	}
}

func all(s string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(strings.ToLower(s), strings.ToLower(w)) {
			return false
		}
	}
	return true
}

// stop ends the process with SIGTERM and returns its exit code.
func (c *child) stop() int {
	c.t.Helper()
	if err := c.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		c.t.Fatal(err)
	}
	limit := busy.Limit(patience)
	give := time.AfterFunc(limit, func() {
		c.t.Errorf("it runs %s after SIGTERM", limit)
		_ = c.cmd.Process.Signal(syscall.SIGQUIT) // the child then prints the stacks of its goroutines into its log
	})
	defer give.Stop()
	for range c.lines {
	}
	var exit *osexec.ExitError
	if err := c.cmd.Wait(); err != nil && !errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return c.cmd.ProcessState.ExitCode()
}
