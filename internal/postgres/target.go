package postgres

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// LoadTarget is like LoadTable, but for a table that capture writes to or compares, and does not follow. It also accepts tables
// that no source can follow: unlogged tables, tables from which other tables inherit, and tables without a key. The rows of
// inheriting tables do not count as rows of the table. If the table has no key, the columns whose names the caller passes
// become its key; these names may come from a manifest. If the caller passes no names, or the name of a column that the table
// lacks, the result has no key. [Table.HasKey] reports whether the table itself has a key.
func LoadTarget(ctx context.Context, q Querier, name Name, key []string) (*Table, error) {
	var row catalogRow
	t, err := row.newTarget(ctx, q, name, key, row.read(ctx, q, name, true, nil, nil))
	if err != nil {
		return nil, err
	}
	if err := t.checkReadable(); err != nil {
		return nil, err
	}
	return t, nil
}

// newTarget is like newTable, but accepts all tables that LoadTarget accepts.
func (c *catalogRow) newTarget(ctx context.Context, q Querier, name Name, key []string, batchErr error) (*Table, error) {
	t, e, err := c.result(ctx, q, name, batchErr)
	if err != nil {
		return nil, err
	}
	if e.Persistence == "u" {
		e.Persistence = "p"
	}
	e.Children = false
	if err := checkKind(e); err != nil {
		return nil, err
	}
	if err := t.addColumns(e, c.ownNames); err != nil {
		return nil, fmt.Errorf("read the catalog of table %s: %w", t.Name(), err)
	}
	if e.Primary == nil && (e.ReplicaIdentity != "i" || e.IdentityIndex == nil) {
		t.assumeKey(key)
		return t, nil
	}
	return t, t.addKey(e)
}

// HasKey reports whether the table has a key of its own: a primary key or a replica identity index. A key that LoadTarget's
// caller has chosen does not count.
func (t *Table) HasKey() bool { return len(t.Key) > 0 && !t.assumedKey }

// assumeKey makes the named columns the key of a table that has no key. capture compares the values of these columns as text,
// because it takes a key's operators from the key's index, and this key has no index.
func (t *Table) assumeKey(names []string) {
	for _, name := range names {
		i := slices.IndexFunc(t.columns, func(c columnEntry) bool { return c.Name == name })
		if i < 0 {
			t.Key, t.keyOperators = nil, nil
			return
		}
		t.Key = append(t.Key, i)
		t.keyOperators = append(t.keyOperators, keyOperator{asText: true})
	}
	t.assumedKey, t.UnprovenKey = true, true
}

// ColumnTypes returns the definitions of the columns with the given names, in this order, as CREATE TABLE takes them: with type
// and collation, without defaults and constraints. Names of types include their schemas.
func (t *Table) ColumnTypes(names []string) string {
	list := make([]string, len(names))
	for i, name := range names {
		c := t.columns[slices.IndexFunc(t.columns, func(c columnEntry) bool { return c.Name == name })]
		list[i] = QuoteIdentifier(name) + " " + c.TypeName
		if c.Collation != "" {
			list[i] += " COLLATE " + c.Collation
		}
	}
	return strings.Join(list, ", ")
}

// ColumnType returns the SQL name of a column's type with its modifier, and with its schema unless the schema is pg_catalog.
func (t *Table) ColumnType(name string) string {
	return t.columns[slices.IndexFunc(t.columns, func(c columnEntry) bool { return c.Name == name })].TypeName
}

// TriggerFunction returns the SQL name of the function that capture's own triggers call, without an argument list.
func (t *Table) TriggerFunction() string {
	return QuoteIdentifier(t.Schema) + "." + QuoteIdentifier(objectName(t.Name()))
}
