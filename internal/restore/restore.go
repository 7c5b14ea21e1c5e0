package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/postgres"
	"capture/internal/statefile"
)

// Restore writes the file's rows into the table in one transaction. If it returns an error other than [ErrUnknownOutcome],
// nothing has changed. While Restore holds its lock on the table, other sessions can read the table, and their writes wait.
func Restore(ctx context.Context, conn *pgx.Conn, o Options) (Result, error) {
	if o.OnConflict == "" {
		o.OnConflict = Fail
	}
	file, err := statefile.Open(ctx, o.Path, o.Stdin)
	if err != nil {
		return Result{}, fmt.Errorf("restore %s: %w", statefile.Name(o.Path), err)
	}
	defer file.Close()
	if o.Edited {
		file.AcceptEdited()
	}
	rows := statefile.NewReader(file)
	r := &restoration{options: o, file: file, rows: rows, progress: &progress{o.Progress, file, rows}, conn: conn, hooks: &hooks{}}
	if err := r.run(ctx); err != nil {
		return Result{}, fmt.Errorf("restore %s: %w", file.Name(), explainMismatch(r.explainViolation(ctx, r.explainDenied(ctx, err))))
	}
	return r.result, nil
}

func (r *restoration) run(ctx context.Context) (err error) {
	if err := r.readFirst(); err != nil {
		return err
	}
	if err := r.confirmTable(); err != nil {
		return err
	}
	if err := r.confirm(ctx); err != nil {
		return err
	}
	if r.tx, err = postgres.Begin(ctx, r.conn, "ISOLATION LEVEL READ COMMITTED READ WRITE"); err != nil {
		return postgres.Explain(fmt.Errorf("begin: %w", err))
	}
	defer r.tx.Rollback(context.WithoutCancel(ctx))
	if r.transaction, err = transactionID(ctx, r.tx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{r.prepareSession, r.prepareTable, r.chooseWay, r.lockTable, r.writeRows, r.checkTransaction} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	if r.result.Sequences, r.result.NotSet, err = setSequences(ctx, r.tx, r.table, r.options.DryRun); err != nil || r.options.DryRun {
		return err
	}
	err = r.tx.Commit(ctx)
	failed := postgres.ExplainRedacted("commit", err)
	// If pgx gets no answer to the commit, it closes the connection, and the outcome is unknown. If pgx could not even send
	// the commit, the server rolls back. In this case SafeToRetry reports true. But SafeToRetry also reports true for
	// ErrConnClosed, which pgx returns even if it has sent the commit and cannot read the answer.
	unsent := pgconn.SafeToRetry(err) && !errors.Is(err, pgconn.ErrConnClosed)
	if err != nil && !unsent && (ctx.Err() != nil || r.conn.IsClosed()) {
		return fmt.Errorf("%w (%w)", ErrUnknownOutcome, failed)
	}
	return failed
}

// readFirst reads the first row of the file, and makes the checks that need only this row.
func (r *restoration) readFirst() (err error) {
	if err := r.file.CheckSize(); err != nil {
		return err
	}
	if lacks := r.file.DescribeOmitted(); lacks != "" {
		if r.options.DeleteExtra {
			return &postgres.Problem{
				Summary: lacks,
				Reason:  "they did not fit into capture's memory, and --delete-extra would delete them",
				Hint:    "restore without --delete-extra",
			}
		}
		r.result.Notes = append(r.result.Notes, lacks+"; they did not fit into capture's memory")
	}
	if r.first, err = r.rows.Next(); err != nil && err != io.EOF {
		return r.file.CheckManifest(r.rows.Rows(), err)
	}
	return nil
}

func (r *restoration) prepareSession(ctx context.Context) error {
	if err := guardSession(ctx, r.tx); err != nil {
		return err
	}
	return setLockTimeout(ctx, r.tx, rowLockTimeout)
}

// ErrUnknownOutcome is the error for a restore that was interrupted, or lost its connection, during the commit. The
// transaction may or may not have been committed.
var ErrUnknownOutcome = errors.New("interrupted during the commit: the rows are all in the table, or none of them is; see which with --dry-run")

// checkTransaction returns an error unless the current transaction is still the one that the restore began. If something in
// the file or in the database has ended that transaction, the result of the restore would be wrong.
func (r *restoration) checkTransaction(ctx context.Context) error {
	id, err := transactionID(ctx, r.tx)
	if err == nil && id != r.transaction {
		err = &postgres.Problem{
			Summary: fmt.Sprintf("the transaction of the restore was ended by something else; table %s may have changed", r.result.Table),
			Hint:    "look at the table, and at the server's log, before you trust either",
		}
	}
	return err
}

// writeRows writes the file's rows into the table, and compares the file with its manifest.
func (r *restoration) writeRows(ctx context.Context) error {
	enable := func(context.Context) error { return nil }
	if r.options.DisableTriggers {
		var note string
		var err error
		if enable, note, err = disableTriggers(ctx, r.tx, r.table, r.hooks); err != nil {
			return err
		}
		r.result.Notes = append(r.result.Notes, note)
	}
	// Defer the deferrable constraints, so that the server checks them only after all rows are written.
	if err := r.setConstraints(ctx, "DEFERRED"); err != nil {
		return err
	}
	if err := r.loadRows(ctx); err != nil {
		return err
	}
	r.result.Rows, r.result.Checked = r.rows.Rows(), r.file.Manifest() != nil
	r.result.Edited = !r.result.Checked && r.file.TableManifest() != nil
	if r.columns != nil {
		r.result.Notes = append(r.result.Notes, r.columns.epochNotes()...)
	}
	// Check deferred constraints now, so that a violation also fails a dry run.
	if err := r.setConstraints(ctx, "IMMEDIATE"); err != nil {
		return err
	}
	if r.compare != nil {
		if err := r.progress.reportDuring("comparing", func() error { return r.compare(ctx) }); err != nil {
			return err
		}
	}
	return enable(ctx)
}

// setConstraints sets when deferrable constraints are checked: at the commit (DEFERRED) or immediately (IMMEDIATE).
//
// DEFERRED affects only the table's constraints and the foreign keys to it, because triggers of the application may rely on
// when other constraints are checked. For the same reason, IMMEDIATE first runs only the deferred checks and triggers of the
// table. It then runs all other deferred checks and triggers. The triggers belong to the application, so they run with the
// session's own settings: see withOwnSettings.
func (r *restoration) setConstraints(ctx context.Context, when string) error {
	var statements []string
	if own := strings.Join(r.hooks.Deferrable, ", "); own != "" {
		statements = append(statements, "SET CONSTRAINTS "+own+" "+when)
	}
	if when == "IMMEDIATE" {
		statements = append(statements, "SET CONSTRAINTS ALL IMMEDIATE")
	}
	err := retryLocked(ctx, func() error {
		return withSavepoint(ctx, r.tx, func() error {
			return withOwnSettings(ctx, r.tx, func() error {
				for _, sql := range statements {
					if _, err := r.tx.Exec(ctx, sql); err != nil {
						return err
					}
				}
				return nil
			})
		})
	})
	if err != nil && r.merge != nil && isForeignKeyViolation(err) {
		if found := r.merge.explainForeignKey(ctx, err); found != nil {
			return fmt.Errorf("check the deferred constraints: %w", found)
		}
	}
	return explain("check the deferred constraints", err)
}

// loadRows writes the rows in the way that chooseWay has chosen.
func (r *restoration) loadRows(ctx context.Context) error {
	switch {
	case r.merge != nil:
		r.merge.exact, r.compare = r.isExact(), r.merge.compare
		return r.merge.merge(ctx, r.rows.Rows())
	case r.columns == nil && r.options.DeleteExtra:
		if err := r.checkFile(ctx, nil); err != nil {
			return err
		}
		return r.deleteAll(ctx)
	case r.columns == nil:
		return r.checkFile(ctx, nil)
	}
	l := r.newLoader(r.table.Name().Quoted()+" ("+columnList("", r.columns.writableNames())+")", false)
	err := l.load(ctx, r.first)
	if err != nil && ctx.Err() == nil {
		err = r.explainDuplicate(ctx, err)
	}
	if err := r.checkFile(ctx, err); err != nil {
		return err
	}
	r.result.Inserted = Change{l.accepted, l.firstKeys}
	r.result.LeftOut.Rows = int64(l.loaded) - l.accepted
	if r.result.LeftOut.Rows > 0 && r.isExact() {
		return fmt.Errorf("the server copied %d of %d rows, although table %s has no trigger that could leave some out; nothing has changed",
			l.accepted, l.loaded, r.result.Table)
	}
	return nil
}

// isExact reports whether the table must become equal to the file. If this is not required, the Result counts the rows that
// differ.
func (r *restoration) isExact() bool {
	o := &r.options
	return o.OnConflict == Overwrite && o.DeleteExtra || r.empty && o.OnConflict != Skip
}

// explainDuplicate returns a clearer error if the server has refused a duplicate key: either the table has a row with that key,
// or the file has two such rows. It returns any other error unchanged.
func (r *restoration) explainDuplicate(ctx context.Context, err error) error {
	var refused *rowError
	if !errors.As(err, &refused) || postgres.SQLState(err) != uniqueViolation {
		return err
	}
	if r.empty {
		return fmt.Errorf("%w; the table was empty, so the file has two such rows", err)
	}
	if r.tx.Rollback(ctx) != nil {
		return err
	}
	args := make([]any, len(refused.key))
	for i, text := range refused.key {
		args[i] = text
	}
	var exists bool
	sql := "SELECT EXISTS (SELECT FROM " + r.table.FromClause() + " WHERE " + r.table.KeyCondition() + ")"
	if postgres.Pinned(r.conn).QueryRow(ctx, sql, args...).Scan(&exists) == nil && exists {
		return &ConflictError{Table: r.result.Table, First: refused.place}
	}
	return err
}
