package restore

import (
	"context"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// tableCounts are the numbers of rows that the current transaction has inserted, updated and deleted in a table.
type tableCounts [3]int64

// countsSQL returns the tableCounts of all tables that the transaction has written to, except temporary tables and the
// restored table with its partitions. The server also counts changes that were rolled back to a savepoint. Therefore,
// countOthers subtracts a baseline. $1 is the table's OID.
var countsSQL = `
	SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), x.ins, x.upd, x.del
	FROM pg_catalog.pg_class c
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	CROSS JOIN LATERAL (SELECT pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid) AS ins, pg_catalog.pg_stat_get_xact_tuples_updated(c.oid) AS upd,
		pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid) AS del) x
	WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'pg_catalog' AND x.ins + x.upd + x.del > 0
		AND c.oid NOT IN ` + postgres.TreeSQL("$1::bigint")

// loadCounts returns the tableCounts of all tables except the restored table. The map's keys are SQL names.
func loadCounts(ctx context.Context, tx pgx.Tx, table *postgres.Table) (map[string]tableCounts, error) {
	rows, err := tx.Query(ctx, countsSQL, int64(table.OID))
	if err != nil {
		return nil, err
	}
	counts := map[string]tableCounts{}
	var name string
	var c tableCounts
	_, err = pgx.ForEachRow(rows, []any{&name, &c[0], &c[1], &c[2]}, func() error {
		counts[name] = c
		return nil
	})
	return counts, err
}

// countOthers returns what the transaction has changed in other tables since baseline was taken.
func countOthers(ctx context.Context, tx pgx.Tx, table *postgres.Table, baseline map[string]tableCounts) ([]OtherTable, error) {
	now, err := loadCounts(ctx, tx, table)
	if err != nil {
		return nil, explain("count what changed in other tables", err)
	}
	var others []OtherTable
	for name, c := range now {
		before := baseline[name]
		if o := (OtherTable{name, c[0] - before[0], c[1] - before[1], c[2] - before[2]}); o.Inserted+o.Updated+o.Deleted > 0 {
			others = append(others, o)
		}
	}
	slices.SortFunc(others, func(a, b OtherTable) int { return strings.Compare(a.Table, b.Table) })
	return others, nil
}
