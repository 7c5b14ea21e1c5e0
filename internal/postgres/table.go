package postgres

import (
	"context"

	"capture/snapshot/rowjson"
)

// Table is the shape of a table, with the facts from the catalog that decide how capture can follow the table.
type Table struct {
	*rowjson.Shape
	Partitioned  bool
	KeyImmediate bool // whether the key is not deferrable: no two rows ever share a key, not even within a transaction
	// ReplicaIdentity is pg_class.relreplident: d(efault), i(ndex), f(ull), n(othing).
	ReplicaIdentity string

	hasIdentity  bool          // whether the table has a usable replica identity; see checkReplicaIdentity
	selectExprs  []string      // expressions of SelectList, one for each column
	columns      []columnEntry // catalog entries, one for each column
	keyOperators []keyOperator // operators that compare keys, one for each key column
	unstableType string        // see UnstableType
	facts        facts
	assumedKey   bool // whether the table has no key of its own, and Key contains the columns that LoadTarget's caller named
}

// Name returns the table's exact name, schema included.
func (t *Table) Name() Name { return Name{Schema: t.Schema, Table: t.Table} }

// Rewritten reports whether the table was rewritten or truncated after the snapshot in which its catalog was read. A rewrite
// or TRUNCATE is not MVCC-safe (see "Caveats" under "Concurrency Control" in Postgres' documentation), so the table's rows
// cannot be read in that snapshot.
func (t *Table) Rewritten() bool { return t.facts.Rewritten }

// Renamed reports whether the table was renamed, moved or dropped after the snapshot in which its catalog was read. A
// statement that names the table then fails, or reads another table.
func (t *Table) Renamed() bool { return t.facts.Renamed }

// LoadTable reads the table's catalog, usually in one round trip. The error is a [*Problem] if the table does not exist, is of
// a kind that no source can follow, or is not entirely readable by the user. LoadTable marks a column as published if pgoutput
// sends it by default. [FindPublication] replaces these marks with those of the publication that it returns.
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

// loadTableUnchecked is like LoadTable, but does not check whether the user may read the table.
func loadTableUnchecked(ctx context.Context, q Querier, name Name) (*Table, error) {
	var row catalogRow
	return row.newTable(ctx, q, name, row.read(ctx, q, name, true, nil, nil))
}
