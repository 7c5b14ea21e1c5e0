package restore

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"capture/internal/postgres"
	"capture/internal/statefile"
)

// loader copies the file's rows into a table of the database.
type loader struct {
	tx       pgx.Tx
	file     *statefile.File
	rows     *statefile.Reader
	columns  *columnMap
	into     string // target table and its columns, as SQL for COPY
	staged   bool   // whether the target is the staging table, which also has the values of generated columns
	numbered bool   // whether each row starts with its number and its line in the file: see appendCopyRow
	progress *progress

	loaded    int      // number of rows that the server has read
	accepted  int64    // number of copied rows that the server has reported
	firstKeys []string // keys of the first rows, at most shownKeys
}

func (r *restoration) newLoader(into string, staged bool) *loader {
	return &loader{tx: r.tx, file: r.file, rows: r.rows, columns: r.columns, into: into, staged: staged, progress: r.progress}
}

// load copies all rows, beginning with firstRow, which the caller has already read from the file. It reads and encodes one
// batch while the server processes the previous batch.
func (l *loader) load(ctx context.Context, firstRow statefile.Row) error {
	g, ctx := errgroup.WithContext(ctx)
	full, free := make(chan *batch), make(chan *batch, 2)
	for range cap(free) {
		free <- &batch{columns: l.columns, staged: l.staged, numbered: l.numbered}
	}
	g.Go(func() error {
		defer close(full)
		return l.encodeBatches(ctx, firstRow, full, free)
	})
	g.Go(func() error {
		for b := range full {
			if err := l.sendBatch(ctx, b); err != nil {
				return err
			}
			l.loaded += b.rowCount()
			l.progress.report("restoring", l.loaded, b.fileRead)
			free <- b
		}
		return nil
	})
	return g.Wait()
}

// encodeBatches takes batches from the channel free, fills them with the remaining rows of the file, and sends them to the
// channel full. nextRow is the first row to add.
func (l *loader) encodeBatches(ctx context.Context, nextRow statefile.Row, full chan<- *batch, free <-chan *batch) (err error) {
	number := 1
	for err == nil {
		var b *batch
		select {
		case b = <-free:
			b.reset()
		case <-ctx.Done():
			return ctx.Err()
		}
		for err == nil && len(b.data) < batchBytes {
			if err := l.encodeRow(b, nextRow, number); err != nil {
				return err
			}
			number++
			nextRow, err = l.rows.Next()
		}
		if err != nil && err != io.EOF {
			return fmt.Errorf("%w; the last good row is at %s", err, b.rowPlace(b.rowCount()-1))
		}
		b.fileRead = l.file.BytesRead()
		select {
		case full <- b:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// encodeRow puts the members of a row into the order of the columns, and adds the row to a batch.
func (l *loader) encodeRow(b *batch, row statefile.Row, number int) error {
	if err := l.columns.reorder(row.Members); err != nil {
		return fmt.Errorf("line %d: %w", row.Line, err)
	}
	if err := b.addRow(row, number); err != nil {
		return fmt.Errorf("%s: %w", l.columns.describePlace(row.Line, l.columns.keyOf(row)), err)
	}
	if len(l.firstKeys) < shownKeys {
		key := l.columns.keyOf(row)
		hides := false
		for i, value := range key {
			hides = hides || l.columns.hides(l.columns.key[i], value)
		}
		if !hides {
			l.firstKeys = append(l.firstKeys, strings.Join(l.columns.keyTexts(key), ", "))
		}
	}
	return nil
}

// sendBatch copies a batch into the table. If the server refuses a row, the error names that row.
func (l *loader) sendBatch(ctx context.Context, b *batch) error {
	row, column, changed, err := l.columns.findChanged(ctx, l.tx, b.checked)
	if err != nil {
		return err
	}
	if changed {
		return l.columns.explainChanged(b.rowPlace(row), column)
	}
	copyRows := func(lo, hi int) error {
		return retryLocked(ctx, func() error {
			return withSavepoint(ctx, l.tx, func() error {
				return withOwnPath(ctx, l.tx, func() error {
					tag, err := l.tx.Conn().PgConn().CopyFrom(ctx, bytes.NewReader(b.rowData(lo, hi)), "COPY "+l.into+" FROM STDIN")
					l.accepted += tag.RowsAffected()
					return err
				})
			})
		})
	}
	i, err := applyRows(0, b.rowCount(), copyRows)
	if err == nil || !isRowError(err) {
		return explain("copy rows", err)
	}
	refused := &rowError{place: b.rowPlace(i), key: l.columns.keyTexts(b.rowKey(i)), column: l.findColumn(err), err: err}
	if at, ok := l.columns.at[refused.column]; ok && refused.column != "" {
		refused.hint = typeHint(&l.columns.targets[at].column.Type)
	}
	return refused
}

// findColumn returns the column that an error of COPY is about, or "" if the error names no column. The error's context may be
// in any language, but a colon always follows the column's name.
func (l *loader) findColumn(err error) string {
	where := postgres.ErrorContext(err)
	found := ""
	for i, name := range l.columns.names {
		if !l.columns.targets[i].generated && len(name) > len(found) && strings.Contains(where, " "+name+": ") {
			found = name
		}
	}
	return found
}
