package restore

import (
	"context"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// defaultTable is the only table that confirmTable accepts from a manifest without a question to the user.
var defaultTable = postgres.Name{Schema: "public", Table: "votes"}

// confirmTable asks the user whether the file may be restored to the table that its manifest names.
func (r *restoration) confirmTable() error {
	o := &r.options
	name := r.file.Table(o.Table)
	if o.ConfirmTable == nil || o.DryRun || o.Table.Table != "" || r.file.TableManifest() == nil || name == defaultTable {
		return nil
	}
	return o.ConfirmTable(name.String())
}

// confirm asks the user whether rows of the table may be overwritten or deleted. It does so before the transaction begins.
// Otherwise the transaction would hold a lock while the user decides: an ALTER TABLE would wait for that lock, and the
// application's statements would wait for the ALTER TABLE.
func (r *restoration) confirm(ctx context.Context) error {
	if !r.needsConfirmation() {
		return nil
	}
	table, err := r.loadTable(ctx, r.conn)
	if isTableMissing(err) {
		return nil // there is nothing to lose
	}
	if err != nil {
		return err
	}
	if _, err := r.mapColumns(table); err != nil {
		return err
	}
	if r.confirmed, err = countBefore(ctx, r.conn, table); err != nil || r.confirmed == 0 {
		return err
	}
	return r.options.Confirm(table.Name().String(), r.confirmed)
}

// countBefore returns the table's row count. When it returns, it holds no lock on the table.
func countBefore(ctx context.Context, conn *pgx.Conn, table *postgres.Table) (rows int64, err error) {
	tx, err := postgres.Begin(ctx, conn, "READ ONLY")
	if err != nil {
		return 0, postgres.ExplainRedacted("begin", err)
	}
	defer postgres.Rollback(ctx, tx)
	if err := lockToRead(ctx, tx, table); err != nil {
		return 0, err
	}
	return countRows(ctx, tx, table)
}
