package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/capture"
	"capture/store"
)

// snapshotTimeout is how long the daemon may take for a forced flush; it gives up by itself before that.
const snapshotTimeout = 10 * time.Minute

type snapshotCmd struct {
	databaseConfig
	outputConfig
	tokenConfig
	JSON bool `name:"json" help:"Answer in JSON."`
}

func (snapshotCmd) Help() string {
	return "Where a daemon keeps the file, it is asked to write it, and when this returns 0, the file holds every vote that " +
		"was committed before. Where none does, the table is exported straight from Postgres into the same files. " +
		"--output - writes the table to standard output instead, straight from Postgres."
}

func (snapshotCmd) Examples() string {
	return `
	capture snapshot
	capture snapshot --json
	capture snapshot --database-url postgres://capture@db/app --output - | gzip > feedback.json.gz`
}

func (c snapshotCmd) Run(ctx context.Context, std streams) error {
	if c.Output == "-" {
		return c.export(ctx, std, std.out)
	}
	path, err := c.file()
	if err != nil {
		return err
	}
	owner, held, err := store.ReadOwner(path)
	switch {
	case err != nil:
		return err
	case !held:
		return c.export(ctx, std, nil)
	}
	address := daemonAddress(owner)
	if address == "" {
		return fmt.Errorf("%s is kept by a daemon that has not said where it listens; try again in a moment", path)
	}
	return c.ask(ctx, std, address)
}

// ask has the daemon write the file.
func (c snapshotCmd) ask(ctx context.Context, std streams, address string) error {
	token, err := c.TokenFile.token()
	if err != nil {
		return usageError{fmt.Errorf("--token-file: %w", err)}
	}
	code, body, err := ask(ctx, http.MethodPost, address, "/snapshot", token, snapshotTimeout)
	if err != nil {
		return err
	}
	if code == http.StatusUnauthorized || code == http.StatusForbidden {
		return fmt.Errorf("the daemon at %s refused: %s (here: --token-file, CAPTURE_TOKEN_FILE)", address, reason(code, body))
	}
	if code != http.StatusOK {
		return fmt.Errorf("the daemon at %s did not write the file: %s", address, reason(code, body))
	}
	var flushed capture.SnapshotResult
	if err := json.Unmarshal(body, &flushed); err != nil {
		return fmt.Errorf("the answer from %s is not capture's: %w", address, err)
	}
	return c.answer(std.out, flushed)
}

// answer prints what was written.
func (c snapshotCmd) answer(w io.Writer, f capture.SnapshotResult) error {
	if c.JSON {
		return json.NewEncoder(w).Encode(f)
	}
	lsn := ""
	if f.LSN != "" {
		lsn = ", LSN " + f.LSN
	}
	_, err := fmt.Fprintf(w, "%s: %s, %s%s, %s\n", filepath.Base(f.Path), rowsText(f.Rows), bytesText(f.Bytes), lsn,
		spanText(time.Duration(f.Millis*float64(time.Millisecond))))
	return err
}

// export writes the table straight from Postgres: to w, or where that is nil into the same files as a daemon.
func (c snapshotCmd) export(ctx context.Context, std streams, w io.Writer) error {
	database, err := c.connection()
	if err != nil {
		return err
	}
	c.warnOfPassword(std)
	v, _ := build()
	start := time.Now()
	if w != nil {
		view, err := capture.Export(ctx, c.exportConfig(database, v, "", std.err))
		if err != nil {
			return err
		}
		_, err = view.WriteTo(w)
		return err
	}
	// The lock comes first, so that no daemon starts on the file meanwhile.
	file, err := store.Open(c.Output, store.Owner{PID: os.Getpid(), Host: hostname(), Version: v, Started: start})
	if err != nil {
		return err
	}
	defer file.Close()
	view, err := capture.Export(ctx, c.exportConfig(database, v, filepath.Dir(file.Path()), std.err))
	if err != nil {
		return err
	}
	manifest, err := file.Write(view, store.ReasonExport)
	if err != nil {
		return err
	}
	if note := file.Note(); note != "" {
		fmt.Fprintln(std.err, "capture snapshot: "+note)
	}
	return c.answer(std.out, capture.SnapshotResult{
		Rows:   manifest.Rows,
		Bytes:  manifest.Bytes,
		LSN:    manifest.LSN,
		SHA256: manifest.SHA256,
		Path:   file.Path(),
		Millis: float64(time.Since(start).Microseconds()) / 1000,
	})
}

// exportConfig has rows that do not fit into memory lie in folder, or where that is "" in the temporary one.
func (c snapshotCmd) exportConfig(database *pgx.ConnConfig, version, folder string, stderr io.Writer) capture.Config {
	return capture.Config{
		Database: database,
		Table:    c.Table.Name,
		SpillDir: folder,
		Version:  version,
		Logger:   hclog.New(&hclog.LoggerOptions{Name: "capture", Level: hclog.Warn, Output: stderr}),
	}
}
