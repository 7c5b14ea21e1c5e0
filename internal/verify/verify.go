package verify

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/internal/statefile"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// Options are the settings of Verify.
type Options struct {
	Path     string          // path of the file, in any form that statefile reads; "-" for Stdin
	Stdin    io.Reader       // input for the path "-"
	Database *pgx.ConnConfig // database to compare with; nil to check only the file
	Table    postgres.Name   // table to compare with; the manifest's table if zero
	// Barrier makes the daemon write to the file all changes that were committed before the call. It is nil if no daemon
	// writes the file.
	Barrier func(context.Context) error
	// Progress is called from time to time during the checks. It may be nil.
	Progress func(statefile.Progress)
	// If MissingNull is set, a nullable column that a row of the file lacks counts as NULL.
	MissingNull bool
}

// Report describes what Verify found.
type Report struct {
	OK         bool        `json:"ok"`
	File       string      `json:"file"`
	Rows       int         `json:"rows"`
	Bytes      int64       `json:"bytes"`
	SHA256     string      `json:"sha256,omitempty"`   // "" if the file could not be read to its end, or does not match its manifest
	Manifest   bool        `json:"manifest"`           // whether the file has a manifest
	Problems   []string    `json:"problems,omitempty"` // sentences about the file itself
	Table      string      `json:"table,omitempty"`    // table that the file was compared with; "" if only the file was checked
	Difference *Difference `json:"difference,omitempty"`
	Notes      []string    `json:"notes,omitempty"` // sentences about checks that were not possible, and why
}

// maxAttempts is the maximum number of times that Verify checks the file. Verify starts again if it finds a fault in a file
// that was replaced during the check.
const maxAttempts = 5

// fileProblem is a fault of the file itself. Any other error means that Verify could not check the file.
type fileProblem struct{ error }

func (p fileProblem) Unwrap() error { return p.error }

// Verify checks the file. It compares the file's size, SHA-256 and row count with the manifest, and checks the JSON and the
// order of the keys. If Options.Database is set, Verify also compares each row with the table's row. The report describes
// what Verify found. An error means that Verify could not check the file.
func Verify(ctx context.Context, o Options) (Report, error) {
	for attempt := 1; ; attempt++ {
		c := &check{options: o}
		err := c.run(ctx)
		replaced := c.file != nil && c.file.Replaced()
		c.close()
		var problem fileProblem
		switch {
		case errors.As(err, &problem) && replaced && attempt < maxAttempts:
			continue // a flush has replaced the file, so the manifest that was read may belong to the new file
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
	file    *statefile.File // nil until the file is opened
	keys    *statefile.KeyReader
	hides   bool     // whether messages must not show the key's values: see rowjson.Shape.UnprovenKey
	nulls   []string // columns that are NULL in the rows that lack them
	byValue bool     // whether the rows may be in any order and form: see Comparison.ByValue
	report  Report
}

func (c *check) close() {
	if c.file != nil {
		c.file.Close()
	}
}

func (c *check) run(ctx context.Context) error {
	if err := c.openFile(ctx); err != nil {
		return err
	}
	if c.options.Database == nil {
		c.keys = statefile.NewManifestKeyReader(c.file.Manifest())
		for _, err := range c.readRows {
			if err != nil {
				return err
			}
		}
		return nil
	}
	// Rows that capture wrote are compared exactly. capture wrote the file if the file has a manifest, or if a daemon writes
	// it. With MissingNull, another program has changed the rows, so they are compared by value.
	c.byValue = c.options.Barrier == nil && (c.file.Manifest() == nil || c.options.MissingNull)
	comparison := Comparison{
		Database: c.options.Database, Table: c.file.Table(c.options.Table), State: c.readState, ByValue: c.byValue,
		Live: c.options.Barrier != nil, Progress: c.options.Progress,
	}
	if m := c.file.Manifest(); m != nil {
		comparison.Key, comparison.ExpectedRows = m.Key, m.Rows
	}
	if c.file.IsRegular() {
		comparison.StateAgain = c.readState
	}
	difference, err := Compare(ctx, comparison)
	if errors.Is(err, errGaveWay) || postgres.IsLockTimeout(err) {
		err = fmt.Errorf("%w; run the command again", err)
	}
	if err == nil {
		c.report.Difference = &difference
	}
	return err
}

// readState returns the file's rows for a comparison with the table. If there is a barrier, readState first calls it. Then
// readState opens the file again, unless the file can be read only once, like standard input.
func (c *check) readState(ctx context.Context, table *postgres.Table) (_ iter.Seq2[snapshot.Row, error], err error) {
	if c.options.Barrier != nil {
		if err := c.options.Barrier(ctx); err != nil {
			return nil, err
		}
	}
	if c.file.IsRegular() {
		if err := c.openFile(ctx); err != nil {
			return nil, err
		}
	}
	c.report.Table, c.hides = table.Name().String(), table.UnprovenKey
	if c.options.MissingNull {
		c.nulls = statefile.NullableColumns(table.Shape, c.file.Manifest())
	}
	c.keys, err = statefile.NewKeyReader(table.Shape)
	return c.readRows, err
}

// openFile opens the file, and closes it first if it is open.
func (c *check) openFile(ctx context.Context) (err error) {
	c.close()
	c.file, err = statefile.Open(ctx, c.options.Path, c.options.Stdin)
	return err
}

// readRows yields the rows of the file, and makes the checks that need only the file. If it finds a fault, it first yields
// the rows before the fault, and then a fileProblem.
func (c *check) readRows(yield func(snapshot.Row, error) bool) {
	c.report.File, c.report.Manifest = c.file.Name(), c.file.Manifest() != nil
	rows, order := statefile.NewReader(c.file), &keyOrder{keys: c.keys, any: c.byValue}
	rows.AddNulls(c.nulls, nil)
	found := c.yieldRows(rows, order, yield)
	if found == errStopped {
		return
	}
	c.report.Rows, c.report.Bytes, c.report.Notes = rows.Rows(), c.file.BytesRead(), nil
	if order.unchecked != "" {
		c.report.Notes = append(c.report.Notes, order.unchecked)
	}
	if lacks := c.file.DescribeOmitted(); lacks != "" {
		c.report.Notes = append(c.report.Notes, lacks+"; they did not fit into capture's memory")
	}
	if c.hides {
		c.report.Notes = append(c.report.Notes, fmt.Sprintf("table %s has no primary key, so only the manifest names the key: texts in it may be users' texts, and are shown as %s",
			c.report.Table, rowjson.HiddenText))
	}
	if !c.report.Manifest && c.options.Path != "-" {
		c.report.Notes = append(c.report.Notes, "it has no manifest beside it, so a change that leaves it valid JSON goes unnoticed")
	}
	if table := c.options.Table; c.options.Database == nil && table.Table != "" {
		c.report.Notes = append(c.report.Notes, fmt.Sprintf("no database is given, so it was not compared with table %s", table))
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

// yieldRows yields the rows before the first bad row, and returns what is wrong with the bad row. It returns nil if all rows
// are good.
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
			if where := order.keys.DescribeNesting(row.Members); where != "" && rows.Rows() == 1 {
				err = fmt.Errorf("%w: %s", err, where)
			}
			return fmt.Errorf("line %d: %w", row.Line, err)
		}
		if !yield(snapshot.Row{Key: key, Line: row.Text}, nil) {
			return errStopped
		}
		if c.options.Progress != nil && rows.Rows()%1000 == 0 {
			p := statefile.Progress{Doing: "reading the file", Rows: rows.Rows(), Bytes: c.file.BytesRead()}
			if m := c.file.Manifest(); m != nil {
				p.Total = m.Bytes
			}
			c.options.Progress(p)
		}
	}
}
