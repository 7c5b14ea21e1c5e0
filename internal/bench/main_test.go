package main

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/objectserver"
	"capture/internal/pgserver"
)

// The benchmarks run capture as a process, with a server whose commits are durable. Each iteration measures capture once and
// its baseline once. `make bench` runs the benchmarks with -benchtime 1x and a -count, and prints the medians of the runs.

// waitTimeout limits each wait of a benchmark.
const waitTimeout = 10 * time.Minute

// The benchmarks of a run share these variables. TestMain creates dir. Everything else is created on first use.
var (
	dir    string // temporary folder
	binary = sync.OnceValues(func() (string, error) {
		path := filepath.Join(dir, "capture")
		build := exec.Command("go", "build", "-trimpath", "-o", path, "capture/cmd/capture")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		out, err := build.CombinedOutput()
		if err != nil {
			err = fmt.Errorf("build capture: %w\n%s", err, out)
		}
		return path, err
	})
	server = sync.OnceValues(func() (*pgserver.Server, error) {
		s, err := pgserver.Start(context.Background(), pgserver.Options{Durable: true, Settings: map[string]string{
			"shared_buffers": "256MB", "max_connections": "50", "max_wal_size": "8GB", "checkpoint_timeout": "1h",
		}})
		if err != nil {
			return nil, err
		}
		started = s
		return s, allowPlugins(s)
	})
	started *pgserver.Server
	filled  = make(map[string]string) // URLs of databases with votes, by name
)

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if dir, err = os.MkdirTemp("", "capture-bench-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		defer func() {
			if started != nil {
				started.Close()
			}
		}()
		return objectserver.Main(m.Run)
	}())
}

// allowPlugins lets the server load the output plugins of the programs with which the benchmarks compare capture. Since August
// 2026, minor releases of Postgres load only the output plugins that the setting output_plugin_libraries lists.
func allowPlugins(s *pgserver.Server) error {
	ctx := context.Background()
	conn, err := pgx.Connect(ctx, s.URL("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var listed bool
	err = conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_settings WHERE name = 'output_plugin_libraries')").Scan(&listed)
	if err != nil || !listed {
		return err
	}
	return s.Reload(ctx, map[string]string{"output_plugin_libraries": "pgoutput, test_decoding, wal2json, decoderbufs"})
}

// tableRows returns the number of votes in the large table.
func tableRows(b *testing.B) int {
	b.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("CAPTURE_BENCH_ROWS"), "100000"))
	if err != nil || n < 1000 {
		b.Fatalf("CAPTURE_BENCH_ROWS=%s is not a number of at least 1000", os.Getenv("CAPTURE_BENCH_ROWS"))
	}
	return n
}

// votesDatabase returns the URL of a database with n votes. Benchmarks may change the votes but not their number.
func votesDatabase(b *testing.B, n int) string {
	b.Helper()
	return filledDatabase(b, fmt.Sprint("votes_", n), n)
}

// filledDatabase returns the URL of the database with this name. If the database does not exist yet, filledDatabase creates it
// with n votes.
func filledDatabase(b *testing.B, name string, n int) string {
	b.Helper()
	if url, ok := filled[name]; ok {
		return url
	}
	s, err := server()
	if err != nil {
		b.Fatal(err)
	}
	execSQL(b, connect(b, s.URL("postgres")), "CREATE DATABASE "+name)
	conn := connect(b, s.URL(name))
	execSQL(b, conn, pgserver.VotesTable)
	const step = 10_000
	for from := 1; from <= n; from += step {
		if err := pgserver.FillVotes(b.Context(), conn, from, min(from+step-1, n)); err != nil {
			b.Fatal(err)
		}
	}
	execSQL(b, conn, "VACUUM (ANALYZE, FREEZE) votes")
	execSQL(b, conn, "CHECKPOINT")
	filled[name] = s.URL(name)
	return filled[name]
}

func connect(b *testing.B, url string) *pgx.Conn {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), url)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func execSQL(b *testing.B, conn *pgx.Conn, statement string, args ...any) {
	b.Helper()
	if _, err := conn.Exec(b.Context(), statement, args...); err != nil {
		b.Fatalf("%s: %v", statement, err)
	}
}

// daemon is a running process of `capture run`.
type daemon struct {
	b       *testing.B
	cmd     *exec.Cmd
	url     string
	path    string // path of feedback.json
	started time.Time
	flushes chan flush
	follows chan time.Time // times at which the daemon has begun to follow the table
	copies  chan copyEvent
	output  chan struct{} // closed at the end of stderr
	last    bytes.Buffer  // lines of stderr that are not of level info; may be read only after output is closed
}

// flush is a log line about a write of the file. The daemon logs the line when the file is durable.
type flush struct {
	at     time.Time // time at which the line arrived
	Reason string    `json:"reason"`
	Rows   int       `json:"rows"`
	Bytes  int64     `json:"bytes"`
	Millis float64   `json:"ms"`
}

// copyEvent is a log line about copies off the machine.
type copyEvent struct {
	at      time.Time // time at which the line arrived
	message string
	millis  float64 // duration of a step if the line reports its end; 0 if the line reports its start
}

// startDaemon starts capture in its own folder.
func startDaemon(b *testing.B, url string, args ...string) *daemon {
	b.Helper()
	program, err := binary()
	if err != nil {
		b.Fatal(err)
	}
	folder, err := os.MkdirTemp(dir, "run-")
	if err != nil {
		b.Fatal(err)
	}
	d := &daemon{b: b, url: url, path: filepath.Join(folder, "feedback.json"), flushes: make(chan flush, 1<<16), follows: make(chan time.Time, 1<<10),
		copies: make(chan copyEvent, 1<<10), output: make(chan struct{})}
	d.cmd = exec.Command(program, append([]string{"run", "--listen=127.0.0.1:0", "--max-wal=100GB", "--verify-interval=0s"}, args...)...)
	d.cmd.Dir = folder
	d.cmd.Env = append(os.Environ(), "DATABASE_URL="+url, "CAPTURE_OUTPUT="+d.path)
	stderr, err := d.cmd.StderrPipe()
	if err != nil {
		b.Fatal(err)
	}
	d.started = time.Now()
	if err := d.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	go func() {
		defer close(d.output)
		lines := bufio.NewScanner(stderr)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			var line struct {
				Message string `json:"@message"`
				Level   string `json:"@level"`
				flush
			}
			if json.Unmarshal(lines.Bytes(), &line) != nil || line.Level != "info" {
				d.last.Write(append(lines.Bytes(), '\n'))
			}
			switch line.Message {
			case "flushed":
				line.at = time.Now()
				d.flushes <- line.flush
			case "following":
				d.follows <- time.Now()
			case copiesBegin, copied, copyProven:
				d.copies <- copyEvent{time.Now(), line.Message, line.Millis}
			}
		}
	}()
	b.Cleanup(d.stop)
	return d
}

// waitFlush waits for the next write of the file that has the given reason.
func (d *daemon) waitFlush(reason string) flush {
	d.b.Helper()
	timeout := time.After(waitTimeout)
	for {
		select {
		case f := <-d.flushes:
			if f.Reason == reason {
				return f
			}
		case <-d.output:
			d.b.Fatalf("capture ended:\n%s", d.last.String())
		case <-timeout:
			d.b.Fatalf("capture wrote no file (%s) within %s", reason, waitTimeout)
		}
	}
}

// waitFollowing waits until the daemon has begun to follow the table, and returns the time at which it began.
func (d *daemon) waitFollowing() time.Time {
	d.b.Helper()
	select {
	case at := <-d.follows:
		return at
	case <-d.output:
		d.b.Fatalf("capture ended:\n%s", d.last.String())
	case <-time.After(waitTimeout):
		d.b.Fatalf("capture did not follow the table within %s", waitTimeout)
	}
	return time.Time{}
}

// runCommand runs another command of capture on the daemon's file and database.
func (d *daemon) runCommand(args ...string) {
	d.b.Helper()
	cmd := exec.Command(d.cmd.Path, args...)
	cmd.Dir = d.cmd.Dir
	cmd.Env = d.cmd.Env
	if out, err := cmd.CombinedOutput(); err != nil {
		d.b.Fatalf("capture %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// stop stops the daemon and removes its files. Further calls do nothing.
func (d *daemon) stop() {
	d.b.Helper()
	if d.cmd.ProcessState != nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // fails only if the process has exited
	end := time.AfterFunc(time.Minute, func() { _ = d.cmd.Process.Kill() })
	<-d.output
	err := d.cmd.Wait()
	end.Stop()
	if err != nil {
		d.b.Errorf("capture: %v\n%s", err, d.last.String())
	}
	if err := os.RemoveAll(d.cmd.Dir); err != nil {
		d.b.Error(err)
	}
}

// quantile returns the value below which the fraction q of the values lies.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
