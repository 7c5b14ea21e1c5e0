package postgres

import (
	"context"

	"github.com/jackc/pgx/v5"

	"capture/snapshot/rowjson"
)

// Table is a table's shape, with the facts from the catalog that decide how the table can be followed.
type Table struct {
	*rowjson.Shape
	Partitioned  bool
	KeyImmediate bool // the key is checked at each row: no two rows share one, not even within a transaction

	replicaIdentity string        // pg_class.relreplident: d(efault), i(ndex), f(ull), n(othing)
	hasIdentity     bool          // UPDATE and DELETE find a replica identity once the table is published
	selectExprs     []string      // the expressions of SelectList, by column
	columns         []columnEntry // the catalog's entries, by column
	keyOperators    []keyOperator // by column of the key
	facts           facts
}

// Name returns the table's exact name, schema included.
func (t *Table) Name() Name { return Name{Schema: t.Schema, Table: t.Table} }

// Rewritten reports whether the table was rewritten or truncated after the snapshot with which its catalog was read. Such a
// change is not bound to snapshots, so the table's rows cannot be read with that one.
func (t *Table) Rewritten() bool { return t.facts.Rewritten }

// LoadTable reads the table's catalog in one statement. The error is a [*Problem] if the table does not exist, is of a kind
// that no source can follow, or is not entirely readable by the user. A column is marked as published if pgoutput sends it by
// default; [EnsurePublication] corrects that for the publication that it returns.
func LoadTable(ctx context.Context, q Querier, name Name) (*Table, error) {
	t, err := loadTableUnchecked(ctx, q, name)
	if err != nil {
		return nil, err
	}
	if err := t.checkReadable(); err != nil {
		return nil, err
	}
	return t, nil
}

// loadTableUnchecked is LoadTable without the check that the user may read the table.
func loadTableUnchecked(ctx context.Context, q Querier, name Name) (*Table, error) {
	var row catalogRow
	b := &pgx.Batch{}
	row.queueCatalog(b, name, catalogSQL, true)
	return row.newTable(ctx, q, name, Pinned(q).SendBatch(ctx, b).Close())
}
