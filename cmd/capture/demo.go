package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"capture/capture"
	"capture/internal/pgserver"
	"capture/internal/postgres"
)

const (
	demoDatabase = "rag"
	demoVotes    = 40               // that stand in the table before capture comes
	demoStart    = 30 * time.Second // for the first copy of them
	demoFinish   = 20 * time.Second // for the last comparison
)

type demoCmd struct {
	Rate     rate     `placeholder:"N" default:"3" help:"Changes a second: new votes, edits and deletes; 0 to make your own with psql."`
	Duration duration `placeholder:"DURATION" default:"0s" min:"0s" max:"87600h" help:"How long to run; 0s until Ctrl-C."`
	Seed     uint64   `placeholder:"N" help:"Make the same votes as an earlier demo; it prints its seed."`
	Source   choice   `enum:"auto,logical,notify,poll" placeholder:"auto|logical|notify|poll" default:"auto" help:"How capture learns of changes."`
	Output   string   `placeholder:"FILE" help:"Keep feedback.json here instead of in a temporary folder. It must not exist, and stays afterwards."`
	Listen   address  `placeholder:"HOST:PORT" default:"127.0.0.1:8080" help:"Where to answer HTTP; another free port where this one is taken."`
}

func (demoCmd) Help() string {
	return "Starts a Postgres server of its own from the machine's server programs, with the votes table and a generator of " +
		"votes, and capture beside it; prints each change as it reaches feedback.json. At the end file and table are " +
		"compared, and all of it is removed. None of the other commands' environment variables is used."
}

func (demoCmd) Examples() string {
	return `
	capture demo
	capture demo --rate 20 --duration 30s --seed 7`
}

func (c demoCmd) Run(ctx context.Context, std streams) (err error) {
	if c.Seed == 0 {
		c.Seed = rand.Uint64N(1_000_000) + 1
	}
	folder, err := os.MkdirTemp("", "capture-demo-")
	if err != nil {
		return fmt.Errorf("make a folder for the demo: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	path, err := c.file(folder)
	if err != nil {
		return err
	}

	fmt.Fprintln(std.err, "Starting a throwaway Postgres …")
	server, err := pgserver.Start(ctx, pgserver.Options{})
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	defer server.Close()
	votes, err := newVoter(ctx, server.URL("postgres"), server.URL(demoDatabase), c.Seed)
	if err != nil {
		return fmt.Errorf("fill the demo's database: %w", err)
	}
	defer votes.close()

	service, err := c.open(server.URL(demoDatabase), path, folder)
	if err != nil {
		return err
	}
	defer service.close()
	return c.play(ctx, std.out, service, votes, path, folder)
}

// file is where the demo's feedback.json goes.
func (c demoCmd) file(folder string) (string, error) {
	if c.Output == "" {
		return filepath.Join(folder, "data", "fallback", "feedback.json"), nil
	}
	path, err := outputConfig{Output: c.Output}.filePath()
	if err != nil {
		return "", err
	}
	if _, err := os.Lstat(path); err == nil {
		return "", usageError{fmt.Errorf("--output: %q exists, and the demo would overwrite it; give a new file", path)}
	}
	return path, nil
}

// open makes the daemon as capture run would, with its logs in folder.
func (c demoCmd) open(url, path, folder string) (*service, error) {
	database, err := postgres.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg := capture.DefaultConfig()
	cfg.Database, cfg.Table, cfg.Source = database, postgres.Name{Table: "votes"}, string(c.Source)
	return openService(serviceOptions{
		daemon:  cfg,
		output:  path,
		listen:  string(c.Listen),
		anyPort: true,
		stderr:  io.Discard, // the lines below are the demo's own
		logs: logConfig{
			logFiles: logFiles{
				UsageLog: filepath.Join(folder, "logs", "usage", "usage.log"),
				ErrorLog: filepath.Join(folder, "logs", "errors", "error.log"),
			},
			LogMaxSize:    10,
			LogMaxBackups: 5,
			LogLevel:      "info",
		},
	})
}

// play runs daemon and generator beside each other until the time is up or ctx ends, and compares at the end.
func (c demoCmd) play(ctx context.Context, out io.Writer, s *service, votes *voter, path, folder string) error {
	// The daemon outlives ctx: at the end it is asked for a last flush.
	daemonCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	var daemon errgroup.Group
	show, over := context.WithCancel(ctx)
	defer over()
	daemon.Go(func() error {
		defer over() // a daemon that fails ends the demo
		return s.run(daemonCtx)
	})

	err := c.perform(show, out, s, votes, path, folder)
	if err == nil {
		err = c.compare(context.WithoutCancel(ctx), out, s, votes, path)
	}
	stop()
	return cmp.Or(daemon.Wait(), err)
}

// perform makes votes and shows how they reach the file. A ctx that ends is no error.
func (c demoCmd) perform(ctx context.Context, out io.Writer, s *service, votes *voter, path, folder string) error {
	if err := firstCopy(ctx, s); err != nil || ctx.Err() != nil {
		return err
	}
	c.introduce(out, s, votes, path, folder)
	if c.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.Duration))
		defer cancel()
	}
	changes := make(chan change, 64)
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error {
		defer close(changes)
		return votes.run(ctx, float64(c.Rate), changes)
	})
	group.Go(func() error {
		watch(out, path, changes)
		return nil
	})
	return group.Wait()
}

// firstCopy waits until feedback.json has been written for the first time.
func firstCopy(ctx context.Context, s *service) error {
	ctx, cancel := context.WithTimeout(ctx, demoStart)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !s.daemon.Status().Ready {
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("capture did not follow the demo's table within %s: %s", spanText(demoStart), s.daemon.Status().Error)
			}
			return nil
		}
	}
	return nil
}

func (c demoCmd) introduce(out io.Writer, s *service, votes *voter, path, folder string) {
	status := s.daemon.Status()
	version, _, _ := strings.Cut(status.ServerVersion, " ") // without the packager's own
	fmt.Fprintf(out, "capture follows the votes table of a throwaway PostgreSQL %s (source: %s).\n\n", version, status.Source)
	for _, line := range [][2]string{
		{"file", path},
		{"page", "http://" + s.address() + "/"},
		{"status", "capture status --output " + path},
		{"database", "psql " + votes.url},
		{"logs", filepath.Join(folder, "logs")},
		{"seed", fmt.Sprint(c.Seed)},
	} {
		fmt.Fprintf(out, "  %-9s %s\n", line[0], line[1])
	}
	until := "Ctrl-C stops it and removes all of it."
	if c.Duration > 0 {
		until = fmt.Sprintf("It ends after %s and removes all of it.", spanText(time.Duration(c.Duration)))
	}
	fmt.Fprintf(out, "\n%s of %s stand in the file. %s\n\n", rowsText(status.File.Rows), bytesText(status.File.Bytes), until)
}

// compare says whether the file equals the table, after one last flush.
func (c demoCmd) compare(ctx context.Context, out io.Writer, s *service, votes *voter, path string) error {
	ctx, cancel := context.WithTimeout(ctx, demoFinish)
	defer cancel()
	if _, err := s.daemon.Snapshot(ctx); err != nil {
		return fmt.Errorf("write feedback.json for the last time: %w", err)
	}
	rows, err := votes.difference(ctx, path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\nfeedback.json equals the table: %s\n", rowsText(rows))
	return err
}

// connect opens a session that prints values as feedback.json has them.
func connect(ctx context.Context, url string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		return nil, err
	}
	cfg.RuntimeParams["timezone"] = "UTC"
	return pgx.ConnectConfig(ctx, cfg)
}
