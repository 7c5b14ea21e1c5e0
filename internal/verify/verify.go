package verify

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/internal/statefile"
	"capture/snapshot"
)

// Options say what Verify compares.
type Options struct {
	Path     string          // path of feedback.json, plain or gzipped; "-" for Stdin
	Stdin    io.Reader       // input for the path "-"
	Database *pgx.ConnConfig // nil checks the file alone
	Table    postgres.Name   // zero for the one in the manifest
	// Barrier makes the daemon that follows the table write everything that is committed by now. It is nil if there is none.
	Barrier func(context.Context) error
	// Progress is called now and then. It may be nil.
	Progress func(statefile.Progress)
}

// Report is what Verify found.
type Report struct {
	OK         bool        `json:"ok"`
	File       string      `json:"file"`
	Rows       int         `json:"rows"`
	Bytes      int64       `json:"bytes"`
	SHA256     string      `json:"sha256,omitempty"`   // "" if the file could not be read to its end, or is not the manifest's
	Manifest   bool        `json:"manifest"`           // the file has a manifest
	Problems   []string    `json:"problems,omitempty"` // sentences about the file itself
	Table      string      `json:"table,omitempty"`    // "" if only the file was checked
	Difference *Difference `json:"difference,omitempty"`
	Notes      []string    `json:"notes,omitempty"` // sentences about what was not checked, and why
}

// maxAttempts is how often Verify starts again because the file was replaced while it was read.
const maxAttempts = 5

// fileProblem is an error in the file, as opposed to one that keeps Verify from checking it.
type fileProblem struct{ error }

func (p fileProblem) Unwrap() error { return p.error }

// Verify checks the file: its size, SHA-256 and rows against the manifest, that it is JSON, and the order of its keys. If there
// is a database, it also compares each row with the table's. What it finds is in the report. The error is why it could not
// check.
func Verify(ctx context.Context, o Options) (Report, error) {
	for attempt := 1; ; attempt++ {
		c := &check{options: o}
		err := c.run(ctx)
		replaced := c.file != nil && c.file.Replaced()
		c.close()
		var problem fileProblem
		switch {
		case errors.As(err, &problem) && replaced && attempt < maxAttempts:
			continue // a flush has put another manifest beside the file that was read
		case errors.As(err, &problem):
			c.report.Problems = append(c.report.Problems, problem.Error())
		case err != nil:
			return Report{}, fmt.Errorf("verify %s: %w", statefile.Name(o.Path), err)
		}
		r := c.report
		r.OK = len(r.Problems) == 0 && (r.Difference == nil || r.Difference.Empty())
		return r, nil
	}
}

// check is one attempt of Verify.
type check struct {
	options Options
	file    *statefile.File // nil until it is opened
	keys    *statefile.KeyReader
	report  Report
}

func (c *check) close() {
	if c.file != nil {
		c.file.Close()
	}
}

func (c *check) run(ctx context.Context) error {
	if c.options.Database == nil {
		if err := c.openFile(ctx); err != nil {
			return err
		}
		c.keys = statefile.NewManifestKeyReader(c.file.Manifest())
		for _, err := range c.readRows {
			if err != nil {
				return err
			}
		}
		return nil
	}
	table, err := c.findTable(ctx)
	if err != nil {
		return err
	}
	difference, err := Compare(ctx, Comparison{
		Database: c.options.Database, Table: table, State: c.readState, Live: c.options.Barrier != nil, Progress: c.options.Progress,
	})
	if err == nil {
		c.report.Difference = &difference
	}
	return err
}

// findTable returns the table to compare with.
func (c *check) findTable(ctx context.Context) (postgres.Name, error) {
	if c.options.Table.Table != "" {
		return c.options.Table, nil
	}
	f, err := statefile.Open(ctx, c.options.Path, bytes.NewReader(nil))
	if err != nil {
		return postgres.Name{}, err
	}
	defer f.Close()
	return f.Table(c.options.Table), nil
}

// readState returns the file's rows for a comparison with the table.
func (c *check) readState(ctx context.Context, table *postgres.Table) (_ iter.Seq2[snapshot.Row, error], err error) {
	if err := c.openFile(ctx); err != nil {
		return nil, err
	}
	c.report.Table = table.Name().String()
	c.keys, err = statefile.NewKeyReader(table.Shape)
	return c.readRows, err
}

// openFile opens the file as it is after the barrier.
func (c *check) openFile(ctx context.Context) (err error) {
	c.close()
	if c.options.Barrier != nil {
		if err := c.options.Barrier(ctx); err != nil {
			return err
		}
	}
	c.file, err = statefile.Open(ctx, c.options.Path, c.options.Stdin)
	return err
}

// readRows yields the rows of the file and checks what can be seen in the file alone. What is wrong with it is a fileProblem, which
// comes last.
func (c *check) readRows(yield func(snapshot.Row, error) bool) {
	c.report.File, c.report.Manifest, c.report.Notes = c.file.Name(), c.file.Manifest() != nil, nil
	rows, order := statefile.NewReader(c.file), &keyOrder{keys: c.keys}
	found := c.yieldRows(rows, order, yield)
	if found == errStopped {
		return
	}
	c.report.Rows, c.report.Bytes = rows.Rows(), c.file.BytesRead()
	if order.unchecked != "" {
		c.report.Notes = append(c.report.Notes, order.unchecked)
	}
	if !c.report.Manifest && c.options.Path != "-" {
		c.report.Notes = append(c.report.Notes, "it has no manifest beside it, so a change that leaves it valid JSON goes unnoticed")
	}
	found = c.file.CheckManifest(rows.Rows(), found)
	if mismatch := (*statefile.MismatchError)(nil); !errors.As(found, &mismatch) && c.file.ReadToEnd() == nil {
		c.report.SHA256 = c.file.SHA256()
	}
	if found != nil {
		yield(snapshot.Row{}, fileProblem{found})
	}
}

var errStopped = errors.New("the caller wants no more rows")

// yieldRows yields the rows up to the first bad one, and returns what is wrong with that.
func (c *check) yieldRows(rows *statefile.Reader, order *keyOrder, yield func(snapshot.Row, error) bool) error {
	for {
		row, err := rows.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%w%s", err, order.describeLast())
		}
		key, err := order.checkNext(row)
		if err != nil {
			return fmt.Errorf("line %d: %w", row.Line, err)
		}
		if !yield(snapshot.Row{Key: key, Line: row.Text}, nil) {
			return errStopped
		}
		if c.options.Progress != nil && rows.Rows()%10_000 == 0 {
			p := statefile.Progress{Doing: "reading the file", Rows: rows.Rows(), Bytes: c.file.BytesRead()}
			if m := c.file.Manifest(); m != nil {
				p.Total = m.Bytes
			}
			c.options.Progress(p)
		}
	}
}
