package restore

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
	"capture/internal/postgres"
	"capture/internal/statefile"
)

// Restore writes the file's rows into the table in one transaction. If it returns an error other than [ErrUnknownOutcome],
// nothing has changed. During the restore, other sessions can read the table, and their writes wait.
func Restore(ctx context.Context, conn *pgx.Conn, o Options) (Result, error) {
	if o.OnConflict == "" {
		o.OnConflict = Fail
	}
	file, err := statefile.Open(ctx, o.Path, o.Stdin)
	if err != nil {
		return Result{}, fmt.Errorf("restore: %w", err)
	}
	defer file.Close()
	r := &restoration{options: o, file: file, rows: statefile.NewReader(file), conn: conn}
	if err := r.run(ctx); err != nil {
		return Result{}, fmt.Errorf("restore %s: %w", file.Name(), err)
	}
	return r.result, nil
}

// restoration is one run of Restore.
type restoration struct {
	options Options
	file    *statefile.File
	rows    *statefile.Reader
	conn    *pgx.Conn
	tx      pgx.Tx
	result  Result

	transaction int64 // ID of the transaction, from txid_current

	first     statefile.Row // first row of the file; zero if the file has no rows
	confirmed int64         // number of rows in the table when the user agreed to overwrite or delete rows
	table     *postgres.Table
	columns   *columnMap // mapping of the file's columns; nil if the file has no rows
	empty     bool       // whether the table had no rows at the start
}

func (r *restoration) run(ctx context.Context) (err error) {
	if err := r.file.CheckSize(); err != nil {
		return err
	}
	if o := r.file.Omitted(); o != nil && r.options.DeleteExtra {
		return &postgres.Problem{
			Summary: fmt.Sprintf("the file lacks %d rows of its table: %s", o.Rows, foreign.Text(strings.Join(o.Keys, ", "))),
			Reason:  "they did not fit into capture's memory, and --delete-extra would delete them",
			Hint:    "restore without --delete-extra",
		}
	}
	if r.first, err = r.rows.Next(); err != nil && err != io.EOF {
		return r.file.CheckManifest(r.rows.Rows(), err)
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
	if err := r.prepareTable(ctx); err != nil {
		return err
	}
	if err := r.lockTable(ctx); err != nil {
		return err
	}
	if err := r.writeRows(ctx); err != nil {
		return err
	}
	if err := r.checkTransaction(ctx); err != nil || r.options.DryRun {
		return err
	}
	if r.result.Sequences, err = advanceSequences(ctx, r.tx, r.table); err != nil {
		return err
	}
	err = r.tx.Commit(ctx)
	if err != nil && ctx.Err() != nil {
		return ErrUnknownOutcome
	}
	return postgres.ExplainRedacted("commit", err)
}

// ErrUnknownOutcome is the error for a restore that was interrupted during the commit. Its transaction may or may not have
// been committed.
var ErrUnknownOutcome = errors.New("interrupted during the commit: the rows are all in the table, or none of them is; see which with --dry-run")

// transactionID returns the ID of the current transaction. Postgres assigns the ID at the first call.
func transactionID(ctx context.Context, tx pgx.Tx) (id int64, err error) {
	err = tx.QueryRow(ctx, "SELECT pg_catalog.txid_current()").Scan(&id)
	return id, postgres.ExplainRedacted("begin", err)
}

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

// defaultTable is the table for which confirmTable does not ask.
var defaultTable = postgres.Name{Schema: "public", Table: "votes"}

// confirmTable asks the user whether the file may be restored to the table that its manifest names.
func (r *restoration) confirmTable() error {
	o := &r.options
	name := r.file.Table(o.Table)
	if o.ConfirmTable == nil || o.DryRun || o.Table.Table != "" || r.file.Manifest() == nil || name == defaultTable {
		return nil
	}
	return o.ConfirmTable(name.String())
}

// needsConfirmation reports whether the user must agree before rows may be overwritten or deleted.
func (r *restoration) needsConfirmation() bool {
	o := &r.options
	return o.Confirm != nil && !o.DryRun && (o.OnConflict == Overwrite || o.DeleteExtra)
}

// confirm asks the user whether rows of the table may be overwritten or deleted. It does so before the transaction begins.
// Otherwise the transaction would hold a lock while the user decides: an ALTER TABLE would wait for that lock, and the
// application's statements would wait for the ALTER TABLE.
func (r *restoration) confirm(ctx context.Context) error {
	if !r.needsConfirmation() {
		return nil
	}
	table, err := postgres.LoadTable(ctx, r.conn, r.file.Table(r.options.Table))
	if isTableMissing(err) {
		return nil // there is nothing to lose
	}
	if err != nil {
		return err
	}
	if _, err := r.mapColumns(table); err != nil {
		return err
	}
	if r.confirmed, err = countRows(ctx, r.conn, table); err != nil || r.confirmed == 0 {
		return err
	}
	return r.options.Confirm(table.Name().String(), r.confirmed)
}

// prepareTable loads or creates the table and maps the file's columns to it.
func (r *restoration) prepareTable(ctx context.Context) (err error) {
	name := r.file.Table(r.options.Table)
	r.table, err = postgres.LoadTable(ctx, r.tx, name)
	switch {
	case isTableMissing(err) && !r.options.Create:
		return &postgres.Problem{
			Summary: fmt.Sprintf("table %s does not exist in this database", name), Err: err,
			Hint: "use --create to create it from the manifest, or name another one with --table",
		}
	case isTableMissing(err):
		if r.result.Notes, err = createTable(ctx, r.tx, name, r.file.Manifest(), r.options.Expressions); err != nil {
			return err
		}
		r.result.Created = true
		r.table, err = postgres.LoadTable(ctx, r.tx, name)
	}
	if err != nil {
		return err
	}
	r.result.Table, r.result.DryRun = r.table.Name().String(), r.options.DryRun
	if r.columns, err = r.mapColumns(r.table); err != nil || r.columns == nil {
		return err
	}
	r.result.Notes = append(r.result.Notes, r.columns.notes...)
	return nil
}

// mapColumns returns the columnMap for a table, or nil if the file has no rows.
func (r *restoration) mapColumns(table *postgres.Table) (*columnMap, error) {
	if r.rows.Rows() == 0 {
		return nil, nil
	}
	return mapColumns(table, r.first.Members, r.file.Manifest())
}

// lockTable locks the table against writes by other sessions until the end of the transaction, except in a dry run. It returns
// an error if the table now has more rows than the user agreed to lose.
func (r *restoration) lockTable(ctx context.Context) error {
	if !r.options.DryRun {
		r.report("waiting for the table", 0, 0)
		// Other sessions can still read. They cannot write, so the comparison stays valid, and no insert takes a value from a
		// sequence while advanceSequences sets it.
		if _, err := r.tx.Exec(ctx, "LOCK TABLE "+r.table.Name().Quoted()+" IN SHARE ROW EXCLUSIVE MODE"); err != nil {
			return postgres.ExplainRedacted("lock table "+r.result.Table, err)
		}
	}
	if r.needsConfirmation() {
		rows, err := countRows(ctx, r.tx, r.table)
		if err != nil {
			return err
		}
		if rows > r.confirmed {
			return &postgres.Problem{
				Summary: fmt.Sprintf("table %s has %d rows now, and had %d when you were asked", r.result.Table, rows, r.confirmed),
				Reason:  "the new ones could be lost",
				Hint:    "stop what writes to the table and try again, or use --yes, which does not ask",
			}
		}
	}
	err := r.tx.QueryRow(ctx, "SELECT NOT EXISTS (SELECT FROM "+r.table.FromClause()+")").Scan(&r.empty)
	return postgres.ExplainRedacted("read table "+r.result.Table, err)
}

// writeRows loads the file's rows into the table, and compares the file with its manifest.
func (r *restoration) writeRows(ctx context.Context) error {
	enable := func(context.Context) error { return nil }
	if r.options.DisableTriggers {
		var note string
		var err error
		if enable, note, err = disableTriggers(ctx, r.tx, r.table); err != nil {
			return err
		}
		r.result.Notes = append(r.result.Notes, note)
	}
	err := r.loadRows(ctx)
	if err != nil && ctx.Err() != nil {
		return err
	}
	if err := r.file.CheckManifest(r.rows.Rows(), err); err != nil {
		return err
	}
	r.result.Rows, r.result.Checked = r.rows.Rows(), r.file.Manifest() != nil
	// Check deferred constraints now, so that a violation also fails a dry run.
	err = withOwnPath(ctx, r.tx, func() error {
		_, err := r.tx.Exec(ctx, "SET CONSTRAINTS ALL IMMEDIATE")
		return err
	})
	if err != nil {
		return postgres.ExplainRedacted("check the deferred constraints", err)
	}
	return enable(ctx)
}

// loadRows copies the rows directly into the table if the table is empty, or if any conflict ends the restore. Otherwise it
// merges them through a temporary table.
func (r *restoration) loadRows(ctx context.Context) error {
	switch {
	case r.columns == nil && r.options.DeleteExtra:
		change, err := deleteAll(ctx, r.tx, r.table)
		r.result.Deleted = change
		return err
	case r.columns == nil:
		return nil
	case r.empty || r.options.OnConflict == Fail && !r.options.DeleteExtra && !r.options.DryRun:
		l := r.newLoader(r.table.Name().Quoted()+" ("+columnList("", r.columns.writableNames())+")", false)
		if err := l.load(ctx, r.first); err != nil {
			return r.explainDuplicate(ctx, err)
		}
		r.result.Inserted = Change{int64(l.loaded), l.firstKeys}
		return nil
	}
	m := newStagedMerge(r.tx, r.columns, &r.options, &r.result)
	if err := m.createStaging(ctx); err != nil {
		return err
	}
	if err := r.newLoader(stagingTable, true).load(ctx, r.first); err != nil {
		return err
	}
	r.report("comparing", r.rows.Rows(), r.file.BytesRead())
	return m.merge(ctx, r.rows.Rows())
}

func (r *restoration) newLoader(into string, staged bool) *loader {
	return &loader{tx: r.tx, file: r.file, rows: r.rows, columns: r.columns, into: into, staged: staged,
		progress: func(rows int, bytes int64) { r.report("restoring", rows, bytes) }}
}

// explainDuplicate returns a clearer error if the server has refused a duplicate key: either the table has a row with that
// key, or the file has two. It returns any other error unchanged.
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

func (r *restoration) report(doing string, rows int, bytes int64) {
	if r.options.Progress != nil {
		r.options.Progress(statefile.Progress{Doing: doing, Rows: rows, Bytes: bytes, Total: r.file.Size()})
	}
}

// isTableMissing reports whether LoadTable failed because the table does not exist.
func isTableMissing(err error) bool {
	var problem *postgres.Problem
	return errors.As(err, &problem) && problem.TableMissing()
}
