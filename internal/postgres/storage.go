package postgres

import (
	"context"
	"fmt"
)

// LoadStorage reports whether one of the table's partitions is a foreign table. It also reports whether all rows of the
// table are stored as a heap, Postgres' built-in access method.
func LoadStorage(ctx context.Context, q Querier, table *Table) (foreign, heap bool, err error) {
	err = q.QueryRow(ctx, `
		SELECT COALESCE(bool_or(c.relkind = 'f'), false), COALESCE(bool_and(c.relam = 2), false) -- 2 is heap, whatever its name
		FROM pg_catalog.pg_class c
		WHERE c.relkind <> 'p' AND c.oid IN `+TreeSQL("$1"),
		table.OID).Scan(&foreign, &heap)
	if err != nil {
		return false, false, fmt.Errorf("query how table %s is stored: %w", table.Name(), err)
	}
	return foreign, heap, nil
}
