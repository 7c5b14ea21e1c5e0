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
	KeyImmediate bool // whether the key is not deferrable: no two rows ever share a key, not even within a transaction
	// ReplicaIdentity is pg_class.relreplident: d(efault), i(ndex), f(ull), n(othing).
	ReplicaIdentity string

	hasIdentity  bool          // whether UPDATE and DELETE have a replica identity once the table is published
	selectExprs  []string      // expressions of SelectList, by column
	columns      []columnEntry // entries of the catalog, by column
	keyOperators []keyOperator // operators that compare the key, by column of the key
	unstableType string        // see UnstableType
	facts        facts
	assumedKey   bool // whether the table has no key of its own, and Key contains the columns that LoadTarget's caller named
}

// Name returns the table's exact name, schema included.
func (t *Table) Name() Name { return Name{Schema: t.Schema, Table: t.Table} }

// Rewritten reports whether the table was rewritten or truncated after the snapshot in which its catalog was read. Such a
// change is not MVCC-safe (see "Caveats" under "Concurrency Control" in Postgres' documentation), so the table's rows cannot
// be read in that snapshot.
func (t *Table) Rewritten() bool { return t.facts.Rewritten }

// Renamed reports whether the table was renamed, moved or dropped after the snapshot in which its catalog was read. Statements
// with the table's name then use another table, or none.
func (t *Table) Renamed() bool { return t.facts.Renamed }

// LoadTable reads the table's catalog in one round trip. The error is a [*Problem] if the table does not exist, is of a kind
// that no source can follow, or is not entirely readable by the user. A column is marked as published if pgoutput sends it by
// default; [FindPublication] corrects that for the publication that it returns.
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
	row.queueCatalog(b, q, name, true)
	return row.newTable(ctx, q, name, Pinned(q).SendBatch(ctx, b).Close())
}
