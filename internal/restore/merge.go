package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// stagingTable is the temporary table that holds the file's rows while they are compared with the table's rows. Its columns
// are the number and the line of a row in the file, and the file's columns with the types of the table. It has no constraints.
const stagingTable = "pg_temp.capture_restore"

// stagedMerge merges the rows of the staging table (alias s) into the table (alias t). It deletes first, then overwrites, then
// inserts, so that a unique value is free before another row needs it.
type stagedMerge struct {
	tx      pgx.Tx
	columns *columnMap
	options *Options
	result  *Result

	key    []string // names of the key columns
	number string   // quoted name of the staging table's column for the row's number
	line   string   // quoted name of the staging table's column for the row's line
	rows   int      // number of rows in the file
}

func newStagedMerge(tx pgx.Tx, columns *columnMap, options *Options, result *Result) *stagedMerge {
	m := &stagedMerge{tx: tx, columns: columns, options: options, result: result, key: columns.keyNames()}
	m.number, m.line = m.unusedName("row"), m.unusedName("line")
	return m
}

// unusedName returns a quoted column name that starts with base and that is not a column of the file.
func (m *stagedMerge) unusedName(base string) string {
	for slices.Contains(m.columns.names, base) {
		base += "_"
	}
	return postgres.QuoteIdentifier(base)
}

// createStaging creates the staging table without rows.
func (m *stagedMerge) createStaging(ctx context.Context) error {
	_, err := m.tx.Exec(ctx, fmt.Sprintf(
		"CREATE TEMPORARY TABLE capture_restore ON COMMIT DROP AS SELECT 0::bigint AS %s, 0::bigint AS %s, %s FROM %s WITH NO DATA",
		m.number, m.line, columnList("", m.columns.names), m.columns.table.Name().Quoted()))
	return postgres.ExplainRedacted("create a temporary table", err)
}

// merge merges the staged rows into the table. rows is the number of rows in the file, all of which must be staged.
func (m *stagedMerge) merge(ctx context.Context, rows int) error {
	m.rows = rows
	if _, err := m.tx.Exec(ctx, "ANALYZE "+stagingTable); err != nil {
		return postgres.ExplainRedacted("analyze the temporary table", err)
	}
	for _, step := range []func(context.Context) error{m.refuseDuplicates, m.deleteExtra, m.resolveConflicts, m.insertMissing} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

// refuseDuplicates returns an error if two rows of the file have the same key.
func (m *stagedMerge) refuseDuplicates(ctx context.Context) error {
	var key string
	var first, last int64
	err := m.tx.QueryRow(ctx, fmt.Sprintf("SELECT %s, min(s.%s), max(s.%[2]s) FROM %s s GROUP BY %s HAVING count(*) > 1 LIMIT 1",
		keyExpression("s", m.key), m.line, stagingTable, columnList("s", m.key))).Scan(&key, &first, &last)
	switch {
	case err == pgx.ErrNoRows:
		return nil
	case err != nil:
		return postgres.ExplainRedacted("search the file for duplicate keys", err)
	}
	return fmt.Errorf("the file has the key %s twice, at lines %d and %d", key, first, last)
}

func (m *stagedMerge) deleteExtra(ctx context.Context) (err error) {
	if !m.options.DeleteExtra {
		return nil
	}
	where := fmt.Sprintf(" WHERE NOT EXISTS (SELECT FROM %s s WHERE %s)", stagingTable, sameKey(m.columns.table, "s", "t"))
	m.result.Deleted, err = countKeys(ctx, m.tx, m.columns.table,
		"SELECT "+keyExpression("t", m.key)+" FROM "+m.columns.table.FromClause()+" t"+where, columnList("t", m.key))
	if err != nil {
		return err
	}
	err = withOwnPath(ctx, m.tx, func() error {
		_, err := m.tx.Exec(ctx, "DELETE FROM "+m.columns.table.Name().Quoted()+" t"+where)
		return err
	})
	return postgres.ExplainRedacted("delete the rows that are not in the file", err)
}

// resolveConflicts skips, overwrites or refuses the staged rows whose keys exist in the table already, as Options.OnConflict
// defines.
func (m *stagedMerge) resolveConflicts(ctx context.Context) error {
	both := fmt.Sprintf("%s t JOIN %s s ON %s", m.columns.table.FromClause(), stagingTable, sameKey(m.columns.table, "s", "t"))
	conflicts, err := m.countStaged(ctx, both)
	if err != nil || conflicts.Rows == 0 {
		return err
	}
	switch m.options.OnConflict {
	case Skip:
		m.result.Skipped = conflicts
		return nil
	case Overwrite:
		return m.overwrite(ctx, both, conflicts.Rows)
	}
	var line int64
	err = m.tx.QueryRow(ctx, fmt.Sprintf("SELECT s.%s FROM %s ORDER BY s.%s LIMIT 1", m.line, both, m.number)).Scan(&line)
	if err != nil {
		return postgres.ExplainRedacted("find the first row that is in the table already", err)
	}
	return &ConflictError{m.columns.table.Name().String(), conflicts.Rows, m.describePlace(line, conflicts.Keys[0])}
}

// overwrite updates the rows of the table that differ from the staged rows with the same keys. It compares rows as text,
// because some types, such as json, have no equality operator.
func (m *stagedMerge) overwrite(ctx context.Context, both string, conflicts int64) (err error) {
	var set, values []string
	for _, name := range m.columns.writableNames() {
		if !slices.Contains(m.key, name) {
			set = append(set, fmt.Sprintf("%s = s.%[1]s", postgres.QuoteIdentifier(name)))
			values = append(values, name)
		}
	}
	if len(set) == 0 {
		m.result.Unchanged = conflicts
		return nil
	}
	differ := fmt.Sprintf("ROW(%s)::pg_catalog.text OPERATOR(pg_catalog.<>) ROW(%s)::pg_catalog.text", columnList("t", values), columnList("s", values))
	if m.result.Overwritten, err = m.countStaged(ctx, both+" WHERE "+differ); err != nil {
		return err
	}
	m.result.Unchanged = conflicts - m.result.Overwritten.Rows
	_, err = m.writeStaged(ctx, fmt.Sprintf("UPDATE %s t SET %s FROM %s s WHERE %s AND %s",
		m.columns.table.Name().Quoted(), strings.Join(set, ", "), stagingTable, sameKey(m.columns.table, "s", "t"), differ))
	return err
}

// insertMissing inserts the staged rows whose keys are not in the table.
func (m *stagedMerge) insertMissing(ctx context.Context) (err error) {
	missing := fmt.Sprintf("%s s WHERE NOT EXISTS (SELECT FROM %s t WHERE %s)",
		stagingTable, m.columns.table.FromClause(), sameKey(m.columns.table, "s", "t"))
	if m.result.Inserted, err = m.countStaged(ctx, missing); err != nil {
		return err
	}
	names := m.columns.writableNames()
	m.result.Inserted.Rows, err = m.writeStaged(ctx, fmt.Sprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s",
		m.columns.table.Name().Quoted(), columnList("", names), columnList("s", names), missing))
	return err
}

// countStaged counts the staged rows that a FROM clause selects, and returns the first few of their keys in the order of the
// file.
func (m *stagedMerge) countStaged(ctx context.Context, from string) (Change, error) {
	return countKeys(ctx, m.tx, m.columns.table, "SELECT "+keyExpression("s", m.key)+" FROM "+from, "s."+m.number)
}

// writeStaged runs a statement that writes staged rows, with the session's own search path, and returns the number of rows
// written. The statement must end with a WHERE condition: writeStaged appends a range of row numbers to it. If the server
// refuses a row, the error names that row.
func (m *stagedMerge) writeStaged(ctx context.Context, sql string) (written int64, err error) {
	refused, err := applyRows(1, m.rows+1, func(lo, hi int) error {
		return withSavepoint(ctx, m.tx, func() error {
			return withOwnPath(ctx, m.tx, func() error {
				tag, err := m.tx.Exec(ctx, fmt.Sprintf("%s AND s.%s OPERATOR(pg_catalog.>=) %d AND s.%[2]s OPERATOR(pg_catalog.<) %[4]d",
					sql, m.number, lo, hi))
				written += tag.RowsAffected()
				return err
			})
		})
	})
	if err == nil {
		return written, nil
	}
	action := "write to " + m.columns.table.Name().String()
	if !postgres.IsRowRefused(err) {
		return 0, postgres.ExplainRedacted(action, err)
	}
	var line int64
	var key string
	query := fmt.Sprintf("SELECT s.%s, %s FROM %s s WHERE s.%s = %d", m.line, keyExpression("s", m.key), stagingTable, m.number, refused)
	if m.tx.QueryRow(ctx, query).Scan(&line, &key) != nil {
		return 0, postgres.ExplainRedacted(action, err)
	}
	return 0, &rowError{place: m.describePlace(line, key), err: err}
}

// describePlace returns the line and the key of a row for an error message.
func (m *stagedMerge) describePlace(line int64, key string) string {
	return fmt.Sprintf("line %d (%s %s)", line, strings.Join(m.key, ", "), key)
}
