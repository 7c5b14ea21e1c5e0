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

	"capture/internal/pgserver"
)

// The benchmarks measure the program from outside, as a process beside a server whose commits are durable. Each iteration
// takes capture and what it is measured against in turn, once; run with -benchtime 1x and a -count, the runs' medians are
// the result, which is what `make bench` prints.

const votesTable = `CREATE TABLE votes (
	vote_id         serial PRIMARY KEY,
	user_query      text,
	bot_response    text,
	evaluation_json jsonb,
	feedback_tags   text[],
	comment         text,
	citations       jsonb,
	"timestamp"     timestamp DEFAULT CURRENT_TIMESTAMP
)`

// patience is how long a benchmark waits for what must come.
const patience = 10 * time.Minute

// What all benchmarks of a run have in common, each made when first needed.
var (
	dir    string // temporary
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
		if err == nil {
			started = s
		}
		return s, err
	})
	started *pgserver.Server
	filled  = make(map[int]string) // URLs of databases by their number of votes
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
		return m.Run()
	}())
}

// rows is how many votes the large table has.
func rows(b *testing.B) int {
	b.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv("CAPTURE_BENCH_ROWS"), "100000"))
	if err != nil || n < 1000 {
		b.Fatalf("CAPTURE_BENCH_ROWS=%s is not a number from 1000", os.Getenv("CAPTURE_BENCH_ROWS"))
	}
	return n
}

// database is one with n votes, which benchmarks may change but not in number.
func database(b *testing.B, n int) string {
	b.Helper()
	if url, ok := filled[n]; ok {
		return url
	}
	s, err := server()
	if err != nil {
		b.Fatal(err)
	}
	name := fmt.Sprint("votes_", n)
	sql(b, connect(b, s.URL("postgres")), "CREATE DATABASE "+name)
	conn := connect(b, s.URL(name))
	sql(b, conn, votesTable)
	const step = 10_000
	for from := 1; from <= n; from += step {
		if err := pgserver.FillVotes(b.Context(), conn, from, min(from+step-1, n)); err != nil {
			b.Fatal(err)
		}
	}
	sql(b, conn, "VACUUM (ANALYZE, FREEZE) votes")
	sql(b, conn, "CHECKPOINT")
	filled[n] = s.URL(name)
	return filled[n]
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

func sql(b *testing.B, conn *pgx.Conn, statement string, args ...any) {
	b.Helper()
	if _, err := conn.Exec(b.Context(), statement, args...); err != nil {
		b.Fatalf("%s: %v", statement, err)
	}
}

// daemon is a "capture run" beside the benchmark.
type daemon struct {
	b       *testing.B
	cmd     *exec.Cmd
	url     string
	path    string // of its feedback.json
	started time.Time
	flushes chan flush
	output  chan struct{} // closed once its stderr has ended
	last    bytes.Buffer  // of its stderr; read it after output is closed
}

// flush is what the daemon says of a write of the file, once it is durable.
type flush struct {
	at     time.Time // when the line came
	Reason string    `json:"reason"`
	Rows   int       `json:"rows"`
	Bytes  int64     `json:"bytes"`
	Millis float64   `json:"ms"`
}

// start starts a capture in a folder of its own.
func start(b *testing.B, url string, args ...string) *daemon {
	b.Helper()
	program, err := binary()
	if err != nil {
		b.Fatal(err)
	}
	folder, err := os.MkdirTemp(dir, "run-")
	if err != nil {
		b.Fatal(err)
	}
	d := &daemon{b: b, url: url, path: filepath.Join(folder, "feedback.json"), flushes: make(chan flush, 1<<16), output: make(chan struct{})}
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
			var said struct {
				Message string `json:"@message"`
				Level   string `json:"@level"`
				flush
			}
			if json.Unmarshal(lines.Bytes(), &said) != nil || said.Level != "info" {
				d.last.Write(append(lines.Bytes(), '\n'))
			}
			if said.Message == "flushed" {
				said.at = time.Now()
				d.flushes <- said.flush
			}
		}
	}()
	b.Cleanup(d.stop)
	return d
}

// flushed waits for the next write of the file for reason.
func (d *daemon) flushed(reason string) flush {
	d.b.Helper()
	timeout := time.After(patience)
	for {
		select {
		case f := <-d.flushes:
			if f.Reason == reason {
				return f
			}
		case <-d.output:
			d.b.Fatalf("capture ended:\n%s", d.last.String())
		case <-timeout:
			d.b.Fatalf("capture wrote no file (%s) within %s", reason, patience)
		}
	}
}

// command runs another command of capture on the daemon's file and database, to its end.
func (d *daemon) command(args ...string) {
	d.b.Helper()
	cmd := exec.Command(d.cmd.Path, args...)
	cmd.Dir = d.cmd.Dir
	cmd.Env = d.cmd.Env
	if out, err := cmd.CombinedOutput(); err != nil {
		d.b.Fatalf("capture %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// stop ends the daemon and removes its files. It may be called more than once.
func (d *daemon) stop() {
	d.b.Helper()
	if d.cmd.ProcessState != nil {
		return
	}
	_ = d.cmd.Process.Signal(syscall.SIGTERM) // fails only where it has ended
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

// quantile is the value below which a share q of the values lies.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}
