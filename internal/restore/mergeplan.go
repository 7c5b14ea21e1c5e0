package restore

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
)

// refuseDuplicates returns an error if two rows of the file have keys that the key's index treats as equal.
func (m *stagedMerge) refuseDuplicates(ctx context.Context) error {
	if len(m.key) == 0 {
		return nil
	}
	key := columnList("s", m.key)
	if !m.table.HasKey() {
		key = keyExpression("s", m.key)
	}
	var text string
	var first, second int64
	err := m.tx.QueryRow(ctx, fmt.Sprintf("SELECT min(%s), min(%s), max(%[2]s) FROM %[3]s s GROUP BY %[4]s HAVING pg_catalog.count(*) OPERATOR(pg_catalog.>) 1 LIMIT 1",
		shownKeyExpression(m.table, "s", m.key), m.placeExpression(), stagingTable, key)).Scan(&text, &first, &second)
	switch {
	case err == pgx.ErrNoRows:
		return nil
	case err != nil:
		return explain("search the file for duplicate keys", err)
	}
	return m.explainDuplicateKey(text, first, second)
}

// explainDuplicateKey returns the error for two rows of the file with the same key.
func (m *stagedMerge) explainDuplicateKey(key string, first, second int64) error {
	what := "lines"
	if m.wide {
		what = "rows"
	}
	return fmt.Errorf("the file has the key %s twice, at %s %d and %d", foreign.Text(key), what, first, second)
}

// planRows creates the plan table. The plan table has one row for each row of the staging table that is to be inserted ("new")
// or overwritten. A row is marked as "moved" if it must be overwritten but UPDATE cannot change it. The merge deletes a moved
// row and inserts it again.
func (m *stagedMerge) planRows(ctx context.Context) error {
	where := "t.tableoid IS NULL"
	moved := "false"
	if m.options.OnConflict == Overwrite {
		where += " OR " + m.differ(m.columns.writableNames())
		if len(m.fixed) > 0 {
			moved = "t.tableoid IS NOT NULL AND " + m.differ(m.fixed)
		}
	}
	join := "LEFT JOIN " + m.table.FromClause() + " t ON " + m.same()
	if len(m.key) == 0 { // the table is empty: chooseWay refuses a table without a key that has rows
		join = "LEFT JOIN (SELECT NULL::pg_catalog.oid AS tableoid) t ON false"
		where, moved = "true", "false"
	}
	_, err := m.tx.Exec(ctx, fmt.Sprintf("CREATE TEMPORARY TABLE capture_restore_plan ON COMMIT DROP AS SELECT %s AS number, t.tableoid IS NULL AS new, %s AS moved FROM %s s %s WHERE %s",
		m.number, moved, stagingTable, join, where))
	if err != nil {
		return explain("compare the file with "+m.table.Name().String(), err)
	}
	err = m.tx.QueryRow(ctx, "SELECT pg_catalog.count(*) FILTER (WHERE new), pg_catalog.count(*) FILTER (WHERE NOT new) FROM "+planTable).Scan(&m.planned.inserted, &m.planned.overwritten)
	if err != nil {
		return explain("compare the file with "+m.table.Name().String(), err)
	}
	if _, err := m.tx.Exec(ctx, "ANALYZE "+planTable); err != nil {
		return explain("analyze the temporary table", err)
	}
	conflicts := int64(m.rows) - m.planned.inserted
	switch {
	case m.options.OnConflict == Fail && conflicts > 0:
		return m.explainConflicts(ctx, conflicts)
	case m.options.OnConflict == Skip && conflicts > 0:
		m.result.Skipped.Rows = conflicts
		m.result.Skipped.Keys, err = m.firstKeys(ctx, stagingTable+" s WHERE NOT EXISTS (SELECT FROM "+planTable+" p WHERE p.number OPERATOR(pg_catalog.=) "+m.number+")")
		return err
	}
	m.result.Unchanged = conflicts - m.planned.overwritten
	return nil
}

// explainConflicts returns the error for rows whose keys the table has already.
func (m *stagedMerge) explainConflicts(ctx context.Context, conflicts int64) error {
	first := m.findPlace(ctx, stagingTable+" s WHERE NOT EXISTS (SELECT FROM "+planTable+" p WHERE p.number OPERATOR(pg_catalog.=) "+m.number+")")
	return &ConflictError{m.table.Name().String(), conflicts, first}
}

// planDeletes counts the rows that are to be deleted: with Options.DeleteExtra, the rows of the table that the file lacks.
func (m *stagedMerge) planDeletes(ctx context.Context) (err error) {
	if !m.options.DeleteExtra || len(m.key) == 0 {
		return nil
	}
	m.result.Deleted, err = countKeys(ctx, m.tx, m.table,
		"SELECT "+shownKeyExpression(m.table, "t", m.key)+" FROM "+m.table.FromClause()+" t WHERE "+m.extra(), columnList("t", m.key))
	m.planned.deleted = m.result.Deleted.Rows
	return err
}

// markMoved marks the rows of the plan for which the condition is true. The merge deletes marked rows and inserts them
// again.
func (m *stagedMerge) markMoved(ctx context.Context, condition string) error {
	for _, sql := range []string{"UPDATE " + planTable + " p SET moved = true WHERE " + condition, "ANALYZE " + planTable} {
		if _, err := m.tx.Exec(ctx, sql); err != nil {
			return err
		}
	}
	return nil
}

// countMoved returns the number of rows in the plan that are to be deleted and inserted again.
func (m *stagedMerge) countMoved(ctx context.Context) (n int64, err error) {
	err = m.tx.QueryRow(ctx, "SELECT pg_catalog.count(*) FROM "+planTable+" WHERE moved").Scan(&n)
	return n, err
}
