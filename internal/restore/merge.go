package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/snapshot/rowjson"
)

const (
	// stagingTable is the temporary table that holds the file's rows while they are compared with the table's rows. Its columns
	// are the number and the line of a row in the file, and the file's columns with the types of the table. It has no
	// constraints.
	stagingTable = "pg_temp.capture_restore"
	// planTable is the temporary table that says what to do with the rows of the staging table: see planRows.
	planTable = "pg_temp.capture_restore_plan"

	maxColumns = 1600 // maximum number of columns of a table: MaxHeapAttributeNumber in Postgres
)

// stagedMerge merges the rows of the staging table (alias s) into the table (alias t). It compares them first, and makes a
// plan. Then one statement deletes, updates and inserts. So the constraints that are checked at the end of a statement, such as
// foreign keys, see only the final state: see runSteps.
type stagedMerge struct {
	tx      pgx.Tx
	columns *columnMap
	table   *postgres.Table
	options *Options
	result  *Result
	hooks   *hooks
	exact   bool // whether the table must become what the file says
	during  func(doing string, f func() error) error

	key             []string // names of the key columns
	generatedDiffer bool     // whether the file's generated columns may have other values than the table's expressions give

	wide   bool   // whether the staging table has no room for the number and the line of a row
	number string // SQL expression for the number of a row of alias s: a number or, if wide, its place in the staging table
	line   string // quoted name of the staging table's column for the row's line; "" if wide
	rows   int    // number of rows in the file

	planned  plannedRows
	moved    int64    // number of rows in the plan that are to be deleted and inserted again
	lacking  []string // columns of the table that the file lacks, except generated ones
	fixed    []string // columns that UPDATE can't set: GENERATED ALWAYS AS IDENTITY
	baseline map[string]tableCounts
}

// plannedRows are the numbers of rows that the merge is going to write.
type plannedRows struct{ inserted, overwritten, deleted int64 }

func newStagedMerge(r *restoration) *stagedMerge {
	m := &stagedMerge{tx: r.tx, columns: r.columns, table: r.table, options: &r.options, result: &r.result, hooks: r.hooks, during: r.during,
		key: r.columns.keyNames(), wide: len(r.columns.names) > maxColumns-2}
	m.number = "s.ctid"
	if !m.wide {
		m.number, m.line = "s."+m.unusedName("row"), m.unusedName("line")
	}
	for i := range r.table.Columns {
		c := &r.table.Columns[i]
		if _, ok := r.columns.at[c.Name]; !ok && c.Generated == "" {
			m.lacking = append(m.lacking, c.Name)
		}
	}
	for i, t := range r.columns.targets {
		if t.column.Identity == "a" {
			m.fixed = append(m.fixed, r.columns.names[i])
		}
	}
	return m
}

// unusedName returns a quoted column name that starts with base and that is not a column of the file.
func (m *stagedMerge) unusedName(base string) string {
	for slices.Contains(m.columns.names, base) {
		base += "_"
	}
	return postgres.QuoteIdentifier(base)
}

// createStaging creates the staging table without rows. It does not lock the table, so that others can change the table's
// definition while the file is read. Only if the user may not name a type, it must lock the table.
func (m *stagedMerge) createStaging(ctx context.Context) error {
	helpers, values := "", ""
	if !m.wide {
		name := strings.TrimPrefix(m.number, "s.")
		helpers, values = fmt.Sprintf("%s bigint, %s bigint, ", name, m.line), fmt.Sprintf("0::bigint AS %s, 0::bigint AS %s, ", name, m.line)
	}
	create := func(rest string) error {
		return withSavepoint(ctx, m.tx, func() error {
			_, err := m.tx.Exec(ctx, "CREATE TEMPORARY TABLE capture_restore "+rest)
			return err
		})
	}
	err := create("(" + helpers + m.table.ColumnTypes(m.columns.names) + ") ON COMMIT DROP")
	if postgres.SQLState(err) == insufficientPrivilege || postgres.SQLState(err) == undefinedObject {
		err = create(fmt.Sprintf("ON COMMIT DROP AS SELECT %s%s FROM %s WITH NO DATA", values, columnList("", m.columns.names), m.table.FromClause()))
	}
	return explain("create a temporary table", err)
}

// merge merges the staged rows into the table. rows is the number of rows in the file, all of which must be staged.
func (m *stagedMerge) merge(ctx context.Context, rows int) error {
	m.rows = rows
	steps := []struct {
		doing string
		step  func(context.Context) error
	}{{"comparing", m.analyze}, {"comparing", m.refuseDuplicates}, {"comparing", m.planRows}, {"comparing", m.planDeletes}, {"writing", m.write}}
	for _, s := range steps {
		if err := m.during(s.doing, func() error { return s.step(ctx) }); err != nil {
			return err
		}
	}
	return nil
}

func (m *stagedMerge) analyze(ctx context.Context) error {
	_, err := m.tx.Exec(ctx, "ANALYZE "+stagingTable)
	return explain("analyze the temporary table", err)
}

// refuseDuplicates returns an error if two rows of the file have the same key, in the sense of the key's index.
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
		keyExpression("s", m.key), m.placeExpression(), stagingTable, key)).Scan(&text, &first, &second)
	switch {
	case err == pgx.ErrNoRows:
		return nil
	case err != nil:
		return explain("search the file for duplicate keys", err)
	}
	return m.explainDuplicateKey(text, first, second)
}

// same returns an SQL condition that is true if the rows of the aliases s and t have the same key.
func (m *stagedMerge) same() string { return sameKey(m.table, "s", "t") }

// differ returns an SQL condition that is true if the rows of the aliases s and t have different JSON in the given columns, by
// the rules of capture verify. It ignores white space in a value of type json where a line of the file can't have it.
func (m *stagedMerge) differ(names []string) string {
	row := func(alias string) string {
		return "pg_catalog.translate(pg_catalog.row_to_json(ROW(" + columnList(alias, names) + `))::pg_catalog.text, E'\n\r', '  ')`
	}
	return row("t") + " OPERATOR(pg_catalog.<>) " + row("s")
}

// planRows creates the plan table. It has one row for each row of the staging table that is to be inserted ("new") or
// overwritten. A row is marked as "moved" if it must be overwritten and UPDATE can't change it: it is deleted and inserted
// again.
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
	if len(m.key) == 0 { // the table is empty
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

// planDeletes counts the rows of the table that the file lacks.
func (m *stagedMerge) planDeletes(ctx context.Context) (err error) {
	if !m.options.DeleteExtra || len(m.key) == 0 {
		return nil
	}
	m.result.Deleted, err = countKeys(ctx, m.tx, m.table,
		"SELECT "+keyExpression("t", m.key)+" FROM "+m.table.FromClause()+" t WHERE "+m.extra(), columnList("t", m.key))
	m.planned.deleted = m.result.Deleted.Rows
	return err
}

// extra returns an SQL condition that is true if the file lacks the row of alias t.
func (m *stagedMerge) extra() string {
	return fmt.Sprintf("NOT EXISTS (SELECT FROM %s s WHERE %s)", stagingTable, m.same())
}

// staged returns a FROM clause for the staged rows in the plan that a condition on the alias p selects. It ends with WHERE.
func (m *stagedMerge) staged(condition string) string {
	return fmt.Sprintf("%s s JOIN %s p ON p.number OPERATOR(pg_catalog.=) %s WHERE %s", stagingTable, planTable, m.number, condition)
}

// firstKeys returns the keys of the first staged rows that a FROM clause selects, in the order of the file.
func (m *stagedMerge) firstKeys(ctx context.Context, from string) (keys []string, err error) {
	if len(m.key) == 0 {
		return nil, nil
	}
	rows, err := m.tx.Query(ctx, fmt.Sprintf("SELECT %s FROM %s ORDER BY %s LIMIT %d", keyExpression("s", m.key), from, m.number, shownKeys))
	if err == nil {
		keys, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	return keys, explain("compare the file with "+m.table.Name().String(), err)
}

// keyMayLookDifferent reports whether two values of key column i can be equal and have different texts, such as 1.0 and 1.00,
// or a and A under a collation that ignores case.
func keyMayLookDifferent(c *rowjson.Column) bool {
	switch c.Type.OID {
	case 16, 20, 21, 23, 26, 1082, 1083, 1114, 1184, 2950: // bool, int8, int2, int4, oid, date, time, timestamp, timestamptz, uuid
		return false
	}
	return true
}
