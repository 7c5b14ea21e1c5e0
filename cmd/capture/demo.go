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
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"capture/capture"
	"capture/internal/demo"
	"capture/internal/foreign"
	"capture/internal/postgres"
	"capture/internal/volume"
)

const (
	demoStartTimeout   = 30 * time.Second // maximum time for the first copy
	demoCompareTimeout = 20 * time.Second
	demoLines          = 4 // maximum number of changes printed per second; the others are only counted
)

type demoCmd struct {
	Rate     rate     `placeholder:"N" default:"3" help:"Changes per second: new, edited and deleted votes. With 0, make your own with psql."`
	Duration duration `placeholder:"DURATION" default:"0s" min:"0s" max:"87600h" help:"How long to run; 0s means until Ctrl-C."`
	Seed     uint64   `placeholder:"N" help:"Seed of the random votes. The demo prints its seed; the same seed makes the same votes."`
	Source   choice   `enum:"auto,logical,notify,poll" placeholder:"auto|logical|notify|poll" default:"auto" help:"How to follow changes."`
	Output   string   `placeholder:"FILE" help:"Write feedback.json to this new file and keep it. The default is a temporary folder."`
	Listen   address  `placeholder:"HOST:PORT" default:"127.0.0.1:8080" help:"Address of the HTTP server. If the port is in use, the demo takes a free one."`
}

func (demoCmd) Help() string {
	return "Starts a temporary Postgres server with the votes table, an application that changes it, and capture. Prints each " +
		"change when it reaches feedback.json. At the end, compares the file with the table and removes everything. The " +
		"server programs of Postgres must be installed. The demo ignores the environment variables of the other commands."
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
		return volume.WithTempHint(fmt.Errorf("create a folder for the demo: %w", err))
	}
	defer func() { err = errors.Join(err, os.RemoveAll(folder)) }()
	path, err := c.outputPath(folder)
	if err != nil {
		return err
	}
	fmt.Fprintln(std.err, "Starting a temporary Postgres server …")
	d, err := demo.Start(ctx, c.Seed)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return linesError{err} // err contains the last lines of the server's log
	}
	defer d.Close()
	service, err := c.openService(d.URL(), path, folder)
	if err != nil {
		return err
	}
	defer service.close()
	return c.runDemo(ctx, std.out, service, d, path, folder)
}

// outputPath returns the path of the demo's feedback.json: --output or, without it, a path below the demo's folder.
func (c demoCmd) outputPath(folder string) (string, error) {
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

// openService opens a service in the same way as `capture run`. The service's logs are below the demo's folder.
func (c demoCmd) openService(url, path, folder string) (*service, error) {
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
		stderr:  io.Discard, // the demo prints its own lines
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

// runDemo runs the daemon and the demo until --duration is over or ctx ends. Then it compares the file with the table.
func (c demoCmd) runDemo(ctx context.Context, out io.Writer, s *service, d *demo.Demo, path, folder string) error {
	// The daemon outlives ctx, because the comparison needs a last flush.
	daemonCtx, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	showCtx, end := context.WithCancel(ctx)
	defer end()
	var daemon errgroup.Group
	daemon.Go(func() error {
		defer end() // if the daemon fails, the demo ends, too
		return s.run(daemonCtx)
	})
	err := c.showChanges(showCtx, out, s, d, path, folder)
	if err == nil {
		err = compareDemo(context.WithoutCancel(ctx), out, s, d, path)
	}
	stop()
	return cmp.Or(daemon.Wait(), err)
}

// showChanges runs the application and prints each change once the file contains it. It returns nil if ctx ends.
func (c demoCmd) showChanges(ctx context.Context, out io.Writer, s *service, d *demo.Demo, path, folder string) error {
	if err := waitFirstCopy(ctx, s); err != nil || ctx.Err() != nil {
		return err
	}
	c.printIntro(out, s, d, path, folder)
	if c.Duration > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(c.Duration))
		defer cancel()
	}
	p := changePrinter{out: out, name: filepath.Base(path)}
	err := d.Run(ctx, float64(c.Rate), path, p.printChange)
	p.printHidden()
	return err
}

// waitFirstCopy waits until feedback.json has been written for the first time. It returns nil if ctx ends, and an error after
// demoStartTimeout.
func waitFirstCopy(ctx context.Context, s *service) error {
	ctx, cancel := context.WithTimeout(ctx, demoStartTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !s.daemon.Status().Ready {
		select {
		case <-tick.C:
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.DeadlineExceeded) {
				return fmt.Errorf("capture did not follow the demo's table within %s: %s", spanText(demoStartTimeout), s.daemon.Status().Error)
			}
			return nil
		}
	}
	return nil
}

func (c demoCmd) printIntro(out io.Writer, s *service, d *demo.Demo, path, folder string) {
	status := s.daemon.Status()
	database, _, _ := strings.Cut(d.URL(), "?")             // psql needs no parameters here, and a "?" would have to be quoted for a shell
	version, _, _ := strings.Cut(status.ServerVersion, " ") // without the packager's suffix
	fmt.Fprintf(out, "capture follows the votes table of a temporary PostgreSQL %s (source: %s).\n\n", version, status.Source)
	for _, line := range [][2]string{
		{"file", path},
		{"page", "http://" + s.address() + "/"},
		{"status", foreign.ShellWord(os.Args[0]) + " status --output " + foreign.ShellPath(path)},
		{"database", "psql " + database},
		{"logs", filepath.Join(folder, "logs")},
		{"seed", strconv.FormatUint(c.Seed, 10)},
	} {
		fmt.Fprintf(out, "  %-9s %s\n", line[0], line[1])
	}
	end := "Ctrl-C stops the demo and removes everything."
	if c.Duration > 0 {
		end = fmt.Sprintf("The demo ends after %s and removes everything.", spanText(time.Duration(c.Duration)))
	}
	fmt.Fprintf(out, "\nThe file has %s (%s). %s\n\n", rowsText(status.File.Rows), bytesText(status.File.Bytes), end)
}

// compareDemo forces a last flush of the file and compares the file with the table.
func compareDemo(ctx context.Context, out io.Writer, s *service, d *demo.Demo, path string) error {
	ctx, cancel := context.WithTimeout(ctx, demoCompareTimeout)
	defer cancel()
	if _, err := s.daemon.Snapshot(ctx); err != nil {
		return fmt.Errorf("write feedback.json for the comparison: %w", err)
	}
	rows, err := d.Compare(ctx, path)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "\nfeedback.json equals the table: %s\n", rowsText(rows))
	return err
}

// changePrinter prints up to demoLines changes per second. It counts the other changes and prints their number.
type changePrinter struct {
	out     io.Writer
	name    string // name of the file
	second  int64  // current second as Unix time
	printed int    // number of changes printed in this second
	hidden  int    // number of changes not printed in this second
}

func (p *changePrinter) printChange(c demo.Change, f demo.File) {
	if f.Read.Unix() != p.second {
		p.printHidden()
		p.second, p.printed = f.Read.Unix(), 0
	}
	if p.printed >= demoLines {
		p.hidden++
		return
	}
	p.printed++
	fmt.Fprintf(p.out, "%s %c vote %-4d %-44s %s → %s %s, %s, %s after commit\n", c.Committed.Format("15:04:05"), c.Operation, c.ID,
		strconv.Quote(clipText(c.Question, 42)), c.Thumb, p.name, rowsText(f.Rows), bytesText(f.Bytes), spanText(f.Read.Sub(c.Committed)))
}

// printHidden prints the number of changes that were not printed, and resets it.
func (p *changePrinter) printHidden() {
	if p.hidden > 0 {
		fmt.Fprintf(p.out, "         … and %s more changes\n", countText(p.hidden))
	}
	p.hidden = 0
}
