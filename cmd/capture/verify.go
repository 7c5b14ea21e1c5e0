package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"capture/internal/foreign"
	"capture/internal/verify"
)

type verifyCmd struct {
	fileConfig
	listenConfig
	tokenConfig
	JSON bool `name:"json" help:"Print the result as JSON."`
}

func (verifyCmd) Help() string {
	return "Checks that the file is valid JSON in key order, and that its size, SHA-256 and rows match the manifest. If a " +
		"database is given (--database-url, DATABASE_URL, PGHOST, PGHOSTADDR, PGSERVICE or PGDATABASE), compares the file with the " +
		"table in one snapshot: missing rows are only in the table, extra rows only in the file. A running daemon writes the " +
		"file first. Exit code 1 means that something is wrong. A loss that the file follows and that nobody has acknowledged is " +
		"printed, too, but does not change the exit code."
}

func (verifyCmd) Examples() string {
	return `
	capture verify
	capture verify --json data/fallback/feedback-20261123T160000Z.json.gz
	capture verify --at "2026-11-23 16:00"
	capture verify azblob://container/feedback --at 2h
	capture verify --database-url postgres://capture@db/app --table votes feedback.json`
}

func (c verifyCmd) Run(ctx context.Context, std streams) error {
	remove, err := c.chooseState(ctx, std, "capture verify")
	defer remove()
	if err != nil {
		return err
	}
	start, shown := time.Now(), newProgress(std.err, "capture verify")
	o := verify.Options{Path: c.File, Stdin: os.Stdin, Table: c.Table.Name, Progress: shown.show, MissingNull: c.Missing == "null"}
	if c.databaseGiven() {
		cfg, err := c.database().connConfig()
		if err != nil {
			return err
		}
		c.database().warnAboutPassword(std)
		o.Database = cfg
		if o.Barrier, err = c.barrier(ctx); err != nil {
			return err
		}
	}
	report, err := verify.Verify(ctx, o)
	shown.clear()
	report.File = cmp.Or(c.fetchedFrom, report.File)
	if ctx.Err() != nil {
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	if c.JSON {
		err = printJSON(std.out, report, "")
	} else {
		_, err = io.WriteString(std.out, verifiedText(report, paletteFor(std.out), time.Since(start)))
	}
	if err == nil && !report.OK {
		err = reportedError{errors.New("not as it should be")}
	}
	return err
}

// databaseGiven reports whether the user specified a database or its server, by the flag or in the environment.
func (c verifyCmd) databaseGiven() bool {
	given := c.DatabaseURL
	for _, name := range []string{"PGHOST", "PGHOSTADDR", "PGSERVICE", "PGDATABASE"} {
		given += os.Getenv(name)
	}
	return given != ""
}

// barrier returns a function that makes the daemon write the file. It returns nil if no running daemon writes this file.
func (c verifyCmd) barrier(ctx context.Context) (func(context.Context) error, error) {
	if c.File == "-" {
		return nil, nil
	}
	address, running, err := findDaemon(ctx, c.File, string(c.Listen))
	if err != nil || !running {
		return nil, err
	}
	if address == "" {
		return nil, fmt.Errorf("the daemon that writes %s has not reported its address yet; try again in a moment", c.File)
	}
	return func(ctx context.Context) error {
		return snapshotCmd{tokenConfig: c.tokenConfig}.requestSnapshot(ctx, streams{out: io.Discard, err: io.Discard}, address)
	}, nil
}

// verifiedText returns the report as text.
func verifiedText(r verify.Report, p palette, took time.Duration) string {
	var b strings.Builder
	line := func(ok bool, format string, args ...any) {
		fmt.Fprintf(&b, "%s %s\n", p.checkMark(ok), fmt.Sprintf(format, args...))
	}
	file := foreign.Line(r.File)
	for _, problem := range r.Problems {
		line(false, "%s: %s", file, foreign.Text(problem))
	}
	if len(r.Problems) == 0 {
		what := "valid JSON"
		if r.Manifest {
			what += ", as its manifest describes it"
		}
		line(true, "%s: %s, %s, %s", file, rowsText(r.Rows), bytesText(r.Bytes), what)
	}
	if d := r.Difference; d != nil {
		line(d.Empty(), "%s: %s, %s", foreign.Text(r.Table), rowsText(int(d.TableRows)), differenceText(d))
		listRows(&b, "missing in the file", d.Missing)
		listRows(&b, "extra in the file", d.Extra)
		listRows(&b, "different", d.Different)
	}
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "  note: %s\n", foreign.Line(note))
	}
	fmt.Fprintf(&b, "  %stook %s%s\n", p.dim, spanText(took), p.off)
	return b.String()
}

func differenceText(d *verify.Difference) string {
	if d.Empty() {
		return "the same in the file"
	}
	return fmt.Sprintf("of which %s missing in the file, %s extra, %s different",
		countText(int(d.Missing.Rows)), countText(int(d.Extra.Rows)), countText(int(d.Different.Rows)))
}

// listRows prints the first rows of a sample, each with the columns that differ.
func listRows(b *strings.Builder, what string, sample verify.RowSample) {
	for i, row := range sample.First {
		columns := ""
		if len(row.Columns) > 0 {
			columns = " in " + strings.Join(row.Columns, ", ")
		}
		fmt.Fprintf(b, "  %-20s %s%s\n", what, foreign.Text(row.Key), foreign.Text(columns))
		if i == len(sample.First)-1 && sample.Rows > int64(len(sample.First)) {
			fmt.Fprintf(b, "  %-20s and %s more\n", "", countText(int(sample.Rows)-len(sample.First)))
		}
	}
}
