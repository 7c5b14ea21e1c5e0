package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/capture"
	"capture/capture/source"
	"capture/internal/foreign"
	"capture/internal/statefile"
	"capture/snapshot"
	"capture/store"
	"capture/store/kept"
	"capture/store/manifest"
	"capture/store/retention"
)

// formatLines is the value of --format for JSON lines.
const formatLines = choice("jsonl")

// snapshotTimeout is the maximum time to wait for the daemon to write the file. The daemon's own limit is shorter, so a daemon
// that is too slow can still answer with an error.
const snapshotTimeout = 10 * time.Minute

type snapshotCmd struct {
	databaseConfig
	outputConfig
	listenConfig
	tokenConfig
	Format choice `enum:"json,jsonl" placeholder:"json|jsonl" default:"json" help:"Format of the file. jsonl (JSON lines: one row a line, no array) needs --output: a file whose name does not end in .json, or -. It is read from Postgres, without the daemon, and replaced at once; earlier states are not kept."`
	JSON   bool   `name:"json" help:"Print the result as JSON."`
}

func (snapshotCmd) Help() string {
	return "If a daemon is running, it writes the file, and exit code 0 means that the file holds every vote committed " +
		"before this command started. Without a daemon, the command reads the table from Postgres and writes the same " +
		"files. With --output - it reads the table from Postgres and writes it to standard output."
}

func (snapshotCmd) Examples() string {
	return `
	capture snapshot
	capture snapshot --json
	capture snapshot --database-url postgres://capture@db/app --output - | gzip > feedback.json.gz
	capture snapshot --format jsonl --output votes.jsonl`
}

func (c snapshotCmd) Run(ctx context.Context, std streams) error {
	if c.Output == "-" {
		return c.exportTable(ctx, std, std.out)
	}
	path, err := c.filePath()
	if err != nil {
		return err
	}
	if c.Format == formatLines && strings.HasSuffix(path, ".json") {
		return usageError{fmt.Errorf("--format jsonl: --output is %q; give a file whose name does not end in .json, such as votes.jsonl, or - for standard output", path)}
	}
	address, running, err := findDaemon(ctx, path, string(c.Listen))
	switch {
	case err != nil:
		return err
	case c.Format == formatLines && running:
		return usageError{fmt.Errorf("--format jsonl: a daemon keeps --output %q as a JSON array; give another file", path)}
	case c.Format == formatLines:
		return c.exportLines(ctx, std, path)
	case !running:
		return c.exportTable(ctx, std, nil)
	case address == "":
		return fmt.Errorf("the daemon that writes %s has not published its address yet; try again in a moment", path)
	}
	return c.requestSnapshot(ctx, std, address)
}

// requestSnapshot asks the daemon at address to write the file.
func (c snapshotCmd) requestSnapshot(ctx context.Context, std streams, address string) error {
	token, err := c.TokenFile.readToken()
	if err != nil {
		return usageError{fmt.Errorf("--token-file: %w", err)}
	}
	code, body, err := askDaemon(ctx, http.MethodPost, address, "/snapshot", token, snapshotTimeout)
	if err != nil {
		return err
	}
	if code == http.StatusUnauthorized || code == http.StatusForbidden {
		return fmt.Errorf("the daemon at %s refused the request: %s; give its token with --token-file or CAPTURE_TOKEN_FILE", address, refusalReason(code, body))
	}
	if code != http.StatusOK {
		return fmt.Errorf("the daemon at %s did not write the file: %s", address, refusalReason(code, body))
	}
	var flushed capture.SnapshotResult
	if err := json.Unmarshal(body, &flushed); err != nil || flushed.Path == "" {
		return fmt.Errorf("the response from %s is not a snapshot's result: %s", address, otherProgram)
	}
	return c.printResult(std.out, flushed)
}

// printResult prints the result of a snapshot. It returns an error if the file lacks rows.
func (c snapshotCmd) printResult(w io.Writer, f capture.SnapshotResult) error {
	if c.JSON {
		return cmp.Or(printJSON(w, f, ""), omittedError(f.Omitted))
	}
	lsn := ""
	if f.LSN != "" {
		lsn = ", LSN " + foreign.Text(f.LSN)
	}
	_, err := fmt.Fprintf(w, "%s: %s, %s%s, %s\n", foreign.Text(filepath.Base(f.Path)), rowsText(f.Rows), bytesText(f.Bytes), lsn,
		spanText(time.Duration(f.Millis*float64(time.Millisecond))))
	return cmp.Or(err, omittedError(f.Omitted))
}

// omittedError returns an error if the file lacks rows because they do not fit into memory. o is nil if the file
// has all rows.
func omittedError(o *manifest.Omitted) error {
	if o == nil {
		return nil
	}
	keys := strings.Join(o.Keys, ", ")
	if len(o.Keys) < o.Rows {
		keys += ", …"
	}
	return fmt.Errorf("the table has %s that are not in the file, since they do not fit into memory: %s; give capture more memory", rowsText(o.Rows), foreign.Text(keys))
}

// exportTable reads the table from Postgres and writes it to w. If w is nil, exportTable writes the same files as a daemon.
func (c snapshotCmd) exportTable(ctx context.Context, std streams, w io.Writer) error {
	database, err := c.connConfig()
	if err != nil {
		return err
	}
	c.warnAboutPassword(std)
	limitHeap(0)
	v, _ := buildInfo()
	start := time.Now()
	if w != nil {
		view, err := c.export(ctx, std, c.exportConfig(database, v, "", std.err))
		if err != nil {
			return err
		}
		if c.Format == formatLines {
			err = view.WriteLines(w)
		} else {
			_, err = view.WriteTo(w)
		}
		return cmp.Or(err, omittedError(manifest.OmittedRows(view)))
	}
	// Take the lock first, so that no daemon can start to write the file during the export.
	file, err := store.Open(c.Output, store.Owner{PID: os.Getpid(), Host: hostname(), Version: v, Started: start})
	if err != nil {
		return err
	}
	defer file.Close()
	// Apply the daemon's retention, so that regular exports do not fill the volume with kept states. This command has no flag
	// --keep, so the policy comes from the environment.
	if keep, err := retention.Parse(os.Getenv("CAPTURE_KEEP")); err == nil {
		file.Kept().SetPolicy(keep)
	}
	view, err := c.export(ctx, std, c.exportConfig(database, v, filepath.Dir(file.Path()), std.err))
	if err != nil {
		return err
	}
	before, hadFile := file.Existing()
	written, err := file.Write(view, store.ReasonExport)
	var compressErr error
	if err == nil {
		_, compressErr = file.Kept().Compress(ctx)
	}
	if s := written.Kept; s != nil {
		fmt.Fprintln(std.err, "capture snapshot: "+foreign.Line(c.keptBeforeText(*s, file.Kept().List())))
	}
	if err != nil {
		return err
	}
	if written.Warning != "" {
		fmt.Fprintln(std.err, "capture snapshot: "+foreign.Line(written.Warning))
	}
	if m := written.Manifest; hadFile && !m.HasTableOf(&before) {
		fmt.Fprintf(std.err, "capture snapshot: warning: the file has another table now: %s, before %s; if this was not intended, "+
			"name the table with its schema: --table schema.name\n", foreign.Line(m.DescribeTable()), foreign.Line(before.DescribeTable()))
	}
	if _, err := file.Kept().Prune(); cmp.Or(compressErr, err) != nil {
		return cmp.Or(compressErr, err)
	}
	return c.printResult(std.out, exportResult(written.Manifest, file.Path(), start))
}

// export reads the table from Postgres, and shows the progress.
func (c snapshotCmd) export(ctx context.Context, std streams, cfg capture.Config) (*snapshot.View, error) {
	reading := source.NewProgress("export", nil)
	shown := newProgress(std.err, "capture snapshot")
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				r, doing := reading.Report().Reading, "reading the table"
				if r.Began.IsZero() {
					doing = "connecting"
				}
				shown.show(statefile.Progress{Doing: doing, Rows: int(r.Rows), TotalRows: int(r.TotalRows)})
			}
		}
	}()
	view, err := capture.Export(ctx, cfg, reading)
	close(done)
	<-stopped
	shown.clear()
	return view, err
}

// exportLines reads the table from Postgres and writes it to the file at path as JSON lines.
func (c snapshotCmd) exportLines(ctx context.Context, std streams, path string) error {
	database, err := c.connConfig()
	if err != nil {
		return err
	}
	c.warnAboutPassword(std)
	limitHeap(0)
	v, _ := buildInfo()
	start := time.Now()
	view, err := c.export(ctx, std, c.exportConfig(database, v, "", std.err))
	if err != nil {
		return err
	}
	m, err := store.WriteLines(path, view, v)
	if err != nil {
		return err
	}
	return c.printResult(std.out, exportResult(m, path, start))
}

// exportResult returns the result for a file that an export has written. start is the time at which the export began.
func exportResult(m manifest.Manifest, path string, start time.Time) capture.SnapshotResult {
	return capture.SnapshotResult{
		Rows:   m.Rows,
		Bytes:  m.Bytes,
		LSN:    m.LSN,
		SHA256: m.SHA256,
		Path:   path,
		Millis: float64(time.Since(start).Microseconds()) / 1000,

		Omitted: m.Omitted,
	}
}

// keptBeforeText returns a message about s, the state that was kept before the file was replaced. The kept states
// of the file usually contain s under another path, because s has been compressed in the meantime.
func (c snapshotCmd) keptBeforeText(s kept.State, states []kept.State) string {
	for _, now := range states {
		if now.CompressedPath() == s.CompressedPath() {
			s = now
		}
	}
	switch {
	case s.Loss != nil:
		return kept.OpenLossesOf(states).Text(s, "capture history --ack --output "+foreign.ShellPath(c.Output))
	case s.Other:
		return "the file was of another table or database; that state is kept as " + s.Path
	}
	return "the state before is kept as " + s.Path
}

// exportConfig returns the configuration of an export. The export spills rows that do not fit into memory to a file in folder
// or, if folder is "", in the system's folder for temporary files.
func (c snapshotCmd) exportConfig(database *pgx.ConnConfig, version, folder string, stderr io.Writer) capture.Config {
	return capture.Config{
		Database: database,
		Table:    c.Table.Name,
		SpillDir: folder,
		Version:  version,
		Logger:   hclog.New(&hclog.LoggerOptions{Name: "capture", Level: hclog.Warn, Output: stderr}),
	}
}
