package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"capture/internal/postgres"
	"capture/snapshot/rowjson"
)

// written holds the row counts of a merge. The counts come from Postgres.
type written struct {
	deleted           int64 // number of deleted rows that the file lacks
	removed, returned int64 // number of rows deleted so that they can be inserted again, and number of these rows that were inserted again
	updated, inserted int64
	withoutTriggers   bool // whether triggers and foreign keys were off
}

// step is one SQL statement of the merge.
type step struct {
	name      string
	sql       string // ends with a condition, so that more conditions can be appended with AND
	returning string // list that follows RETURNING
	needed    bool
}

// steps returns the statements of the merge in their order: first deletes, then updates, then inserts, so that a unique value
// is free before another row needs it.
func (m *stagedMerge) steps() []step {
	target, names := m.table.FromClause()+" t", m.columns.writableNames()
	var set []string
	for i, name := range m.columns.names {
		t := &m.columns.targets[i]
		if !t.generated && !slices.Contains(m.fixed, name) && (!slices.Contains(m.key, name) || keyMayLookDifferent(t.column)) {
			set = append(set, fmt.Sprintf("%s = s.%[1]s", postgres.QuoteIdentifier(name)))
		}
	}
	number := m.removedNumber()
	return []step{
		{"deleted", fmt.Sprintf("DELETE FROM %s WHERE %s", target, m.extra()), "1", m.planned.deleted > 0},
		{"removed", fmt.Sprintf("DELETE FROM %s USING %s AND %s", target, m.staged("p.moved"), m.same()), "p.number AS " + number + commaColumns("t", m.lacking), m.moved > 0},
		{"updated", fmt.Sprintf("UPDATE %s SET %s FROM %s AND %s", target, strings.Join(set, ", "), m.staged("NOT p.new AND NOT p.moved"), m.same()),
			"1", m.planned.overwritten > m.moved},
		{"returned", m.insertReturned("removed", number), "1", m.moved > 0},
		{"inserted", fmt.Sprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s",
			m.table.Name().Quoted(), columnList("", names), columnList("s", names), m.staged("p.new")), "1", m.planned.inserted > 0},
	}
}

// removedNumber returns the name of the column that holds the number of a removed row. The table or WITH query that holds
// the removed rows has this column next to the columns that the file lacks, so its name must differ from theirs.
func (m *stagedMerge) removedNumber() string {
	name := "capture_number"
	for slices.Contains(m.lacking, name) {
		name += "_"
	}
	return name
}

// insertReturned returns a statement that inserts the removed rows again. In the columns that the file lacks, the rows keep
// their values. removedRows names the table or WITH query that holds these values. numberColumn names its column with the
// rows' numbers in the file.
func (m *stagedMerge) insertReturned(removedRows, numberColumn string) string {
	names := m.columns.writableNames()
	return fmt.Sprintf("INSERT INTO %s (%s%s) OVERRIDING SYSTEM VALUE SELECT %s%s FROM %s k JOIN %s s ON %s OPERATOR(pg_catalog.=) k.%s WHERE true",
		m.table.Name().Quoted(), columnList("", names), commaColumns("", m.lacking), columnList("s", names), commaColumns("k", m.lacking),
		removedRows, stagingTable, m.number, numberColumn)
}

// commaColumns returns columnList with a comma before it, or "" for no columns.
func commaColumns(alias string, names []string) string {
	if len(names) == 0 {
		return ""
	}
	return ", " + columnList(alias, names)
}

// runSteps runs steps with the session's own settings: as one statement or, if the table has rules, one after the other. In
// one statement, foreign keys are checked and AFTER triggers fire only at the end of the statement. So rows may refer to each
// other, and rows that other rows refer to may be deleted and inserted again. Unique constraints are checked row by row, and
// see what the earlier steps did.
func (m *stagedMerge) runSteps(ctx context.Context, steps []step) (w written, err error) {
	steps = slices.DeleteFunc(slices.Clone(steps), func(s step) bool { return !s.needed })
	rows := map[string]*int64{"deleted": &w.deleted, "removed": &w.removed, "updated": &w.updated, "returned": &w.returned, "inserted": &w.inserted}
	if len(steps) == 0 {
		return w, nil
	}
	err = withOwnSettings(ctx, m.tx, func() error {
		if len(m.hooks.Rules) > 0 {
			// If a table has rules of some kinds, Postgres refuses WITH and RETURNING. So run each statement on its own.
			for _, s := range steps {
				tag, err := m.tx.Exec(ctx, s.sql)
				if err != nil {
					return err
				}
				*rows[s.name] = tag.RowsAffected()
			}
			return nil
		}
		var counts []string
		var into []any
		for _, s := range steps {
			counts = append(counts, "(SELECT pg_catalog.count(*) FROM "+s.name+")")
			into = append(into, rows[s.name])
		}
		return m.tx.QueryRow(ctx, "WITH "+joinSteps(steps)+" SELECT "+strings.Join(counts, ", ")).Scan(into...)
	})
	return w, err
}

// joinSteps returns the steps as the list of a WITH clause. Postgres chooses the order in which it runs the statements of
// such a list. Therefore, each step reads the row count of the previous step. It then starts only when the previous step has
// ended.
func joinSteps(steps []step) string {
	var with []string
	for i, s := range steps {
		sql := s.sql
		if i > 0 {
			sql += " AND (SELECT pg_catalog.count(*) FROM " + steps[i-1].name + ") IS NOT NULL"
		}
		with = append(with, s.name+" AS ("+sql+" RETURNING "+s.returning+")")
	}
	return strings.Join(with, ", ")
}

// keyMayLookDifferent reports whether two values of key column c can be equal and have different texts, such as 1.0 and 1.00,
// or a and A under a collation that ignores case.
func keyMayLookDifferent(c *rowjson.Column) bool {
	switch c.Type.OID {
	case 16, 20, 21, 23, 26, 1082, 1083, 1114, 1184, 2950: // bool, int8, int2, int4, oid, date, time, timestamp, timestamptz, uuid
		return false
	}
	return true
}
