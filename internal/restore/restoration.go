package restore

import (
	"context"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/internal/statefile"
)

// restoration is one run of Restore.
type restoration struct {
	options  Options
	file     *statefile.File
	rows     *statefile.Reader
	progress *progress
	conn     *pgx.Conn
	tx       pgx.Tx
	result   Result

	transaction int64 // ID of the transaction, from txid_current

	first     statefile.Row // first row of the file; zero if the file has no rows
	confirmed int64         // number of rows in the table when the user agreed to overwrite or delete rows
	table     *postgres.Table
	hooks     *hooks // the hooks that may act on the rows

	hooksDocument string // all hooks as JSON, from loadHooks

	columns *columnMap                  // mapping of the file's columns; nil if the file has no rows
	merge   *stagedMerge                // merge by a temporary table; nil if the rows are copied straight into the table
	empty   bool                        // whether the table had no rows at the start
	compare func(context.Context) error // compares the table with the file after all rows have been written; may be nil
}

// checkFile compares the file with its manifest after the rows have been read. readErr is the error that ended the reading,
// or nil.
func (r *restoration) checkFile(ctx context.Context, readErr error) error {
	if readErr != nil && ctx.Err() != nil {
		return readErr
	}
	return r.file.CheckManifest(r.rows.Rows(), readErr)
}

// needsConfirmation reports whether the user must agree before rows may be overwritten or deleted.
func (r *restoration) needsConfirmation() bool {
	o := &r.options
	return o.Confirm != nil && !o.DryRun && (o.OnConflict == Overwrite || o.DeleteExtra)
}
