package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

const (
	// stagingTable is the temporary table that holds the file's rows while they are compared with the table's rows. It has
	// the file's columns, with the types of the table and without constraints. If Postgres' limit allows two more columns, the
	// temporary table starts with the number of the row in the file, and the line on which the row starts.
	stagingTable = "pg_temp.capture_restore"
	// planTable is the temporary table that records which rows of the staging table are to be inserted or overwritten: see
	// planRows.
	planTable = "pg_temp.capture_restore_plan"

	maxColumns = 1600 // maximum number of columns of a table: MaxHeapAttributeNumber in Postgres
)

// stagedMerge merges the rows of the staging table (alias s) into the table (alias t). It first compares the rows and makes
// a plan. Usually, a single statement carries out the plan by deleting, updating and inserting rows. Constraints that are
// checked at the end of a statement, such as foreign keys, therefore see only the final state. See runSteps.
type stagedMerge struct {
	tx       pgx.Tx
	columns  *columnMap
	table    *postgres.Table
	options  *Options
	result   *Result
	hooks    *hooks
	exact    bool // whether the table must become equal to the file
	progress *progress

	key             []string // names of the key columns
	generatedDiffer bool     // whether the file's values of generated columns may differ from the results of the table's expressions

	wide   bool   // whether the staging table has no room for the columns with a row's number and line number
	number string // SQL expression that identifies a row of alias s: its number in the file or, if wide, its ctid
	line   string // quoted name of the staging table's column for the line number; "" if wide
	rows   int    // number of rows in the file

	planned  plannedRows
	skipped  string   // temporary table with the skipped rows as they were before the merge, as SQL; "" if nothing can change these rows: see saveSkipped
	moved    int64    // number of rows in the plan that are to be deleted and inserted again
	lacking  []string // columns of the table that the file lacks, except generated columns
	fixed    []string // columns that UPDATE cannot set, because they are GENERATED ALWAYS AS IDENTITY
	baseline map[string]tableCounts
}

// plannedRows holds the numbers of rows that the merge is going to insert, overwrite and delete.
type plannedRows struct{ inserted, overwritten, deleted int64 }

// prepare sets the fields that depend only on the table and on the file's columns.
func (m *stagedMerge) prepare() {
	m.key, m.wide = m.columns.keyNames(), len(m.columns.names) > maxColumns-2
	m.number = "s.ctid"
	if !m.wide {
		m.number, m.line = "s."+m.unusedName("row"), m.unusedName("line")
	}
	for i := range m.table.Columns {
		c := &m.table.Columns[i]
		if _, ok := m.columns.at[c.Name]; !ok && c.Generated == "" {
			m.lacking = append(m.lacking, c.Name)
		}
	}
	for i, t := range m.columns.targets {
		if t.column.Identity == "a" {
			m.fixed = append(m.fixed, m.columns.names[i])
		}
	}
}

// unusedName returns a quoted column name that starts with base and that is not a column of the file.
func (m *stagedMerge) unusedName(base string) string {
	for slices.Contains(m.columns.names, base) {
		base += "_"
	}
	return postgres.QuoteIdentifier(base)
}

// createStaging creates the staging table without rows. It does not lock the target table, so that other sessions can change
// the table's definition while the file is read. But if the user may not use a column's type by its name, createStaging takes
// the types from the target table, which locks that table.
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
	if postgres.IsDenied(err) || postgres.SQLState(err) == undefinedObject {
		err = create(fmt.Sprintf("ON COMMIT DROP AS SELECT %s%s FROM %s WITH NO DATA", values, columnList("", m.columns.names), m.table.FromClause()))
	}
	return explain("create a temporary table", err)
}

// same returns an SQL condition that is true if the rows of the aliases s and t have the same key.
func (m *stagedMerge) same() string { return sameKey(m.table, "s", "t") }

// differ returns an SQL condition that is true if the rows of the aliases s and t have different JSON in the given columns, by
// the rules of capture verify. It treats newlines and carriage returns in a value of type json as spaces, because a line of the
// file can't contain them.
func (m *stagedMerge) differ(names []string) string {
	row := func(alias string) string {
		return "pg_catalog.row_to_json(ROW(" + columnList(alias, names) + "))::pg_catalog.text"
	}
	flat := func(alias string) string { return "pg_catalog.translate(" + row(alias) + `, E'\n\r', '  ')` }
	// translate is slow, so the rows are first compared without it.
	return "(" + row("t") + " OPERATOR(pg_catalog.<>) " + row("s") + " AND " + flat("t") + " OPERATOR(pg_catalog.<>) " + flat("s") + ")"
}

// extra returns an SQL condition that is true if the file lacks the row of alias t.
func (m *stagedMerge) extra() string {
	return fmt.Sprintf("NOT EXISTS (SELECT FROM %s s WHERE %s)", stagingTable, m.same())
}

// staged returns the part of a statement that follows FROM or USING. This part joins the staged rows (alias s) with the plan
// (alias p). It ends with WHERE and the given condition, so callers may append AND and another condition.
func (m *stagedMerge) staged(condition string) string {
	return fmt.Sprintf("%s s JOIN %s p ON p.number OPERATOR(pg_catalog.=) %s WHERE %s", stagingTable, planTable, m.number, condition)
}

// firstKeys returns the keys of the first staged rows that a query selects, in the order of the file. fromClause is the part
// of the query after FROM, with a WHERE clause.
func (m *stagedMerge) firstKeys(ctx context.Context, fromClause string) (keys []string, err error) {
	if len(m.key) == 0 || hidesKey(m.table) {
		return nil, nil
	}
	rows, err := m.tx.Query(ctx, fmt.Sprintf("SELECT %s FROM %s ORDER BY %s LIMIT %d", keyExpression("s", m.key), fromClause, m.number, shownKeys))
	if err == nil {
		keys, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	return keys, explain("compare the file with "+m.table.Name().String(), err)
}

// placeExpression returns an SQL expression for the place of the row of alias s in the file. The place is the row's line
// number or, if the staging table has no room for the line number, the row's number.
func (m *stagedMerge) placeExpression() string {
	if m.wide {
		return "(SELECT pg_catalog.count(*) FROM " + stagingTable + " b WHERE b.ctid OPERATOR(pg_catalog.<=) s.ctid)"
	}
	return "s." + m.line
}

// describePlace returns the place and the key of a row for an error message.
func (m *stagedMerge) describePlace(place int64, key string) string {
	what := "line"
	if m.wide {
		what = "row"
	}
	if len(m.key) == 0 {
		return fmt.Sprintf("%s %d", what, place)
	}
	return fmt.Sprintf("%s %d (%s %s)", what, place, strings.Join(m.key, ", "), foreign.Text(key))
}

// findPlace returns the place of the first staged row that a query selects. fromClause is the part of the query after FROM,
// with a WHERE clause. findPlace returns "" if there is no such row, or on an error.
func (m *stagedMerge) findPlace(ctx context.Context, fromClause string) string {
	key := "''"
	if len(m.key) > 0 {
		key = shownKeyExpression(m.table, "s", m.key)
	}
	var place int64
	var text string
	err := withSavepoint(ctx, m.tx, func() error {
		return m.tx.QueryRow(ctx, fmt.Sprintf("SELECT %s, %s FROM %s ORDER BY %s LIMIT 1", m.placeExpression(), key, fromClause, m.number)).Scan(&place, &text)
	})
	if err != nil {
		return ""
	}
	return m.describePlace(place, text)
}
