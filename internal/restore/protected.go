package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// areMovedProtected reports whether any of the rows that are to be deleted and inserted again is protected: see protected. It
// first locks these rows. Another session may have inserted a row that refers to one of them, but not committed yet. The lock
// waits until that transaction has ended, so the next statement sees the row.
func (m *stagedMerge) areMovedProtected(ctx context.Context) (found bool, err error) {
	protected := m.protected()
	if protected == "" {
		return false, nil
	}
	rows := fmt.Sprintf("%s t, %s AND %s", m.table.FromClause(), m.staged("p.moved"), m.same())
	if _, err := m.tx.Exec(ctx, "SELECT FROM "+rows+" FOR UPDATE OF t"); err != nil {
		return false, err
	}
	err = m.tx.QueryRow(ctx, fmt.Sprintf("SELECT EXISTS (SELECT FROM %s AND (%s))", rows, protected)).Scan(&found)
	return found, err
}

// protected returns an SQL condition for the row with the alias t and its row of the file, with the alias s. The condition
// is true if another row refers to the row t by a foreign key with an action, such as ON DELETE CASCADE or ON DELETE
// RESTRICT. It is also true if the user may not read a table with such a foreign key. If it is true for a row, this row must
// not be deleted, not even to be inserted again. protected returns "" if no foreign key to the table has an action.
func (m *stagedMerge) protected() string {
	var conditions []string
	for i := range m.hooks.ForeignKeys {
		k := &m.hooks.ForeignKeys[i]
		switch {
		case !k.To:
		case k.OnDelete == "a":
			if followed := m.followed(k); followed != "" {
				conditions = append(conditions, followed)
			}
		case !k.readable():
			return "true"
		default:
			conditions = append(conditions, fmt.Sprintf("EXISTS (SELECT FROM %s c WHERE %s)", k.ChildRows, k.refersTo("c", "t")))
			if k.From && !slices.ContainsFunc(k.Columns, func(name string) bool { return !slices.Contains(m.columns.names, name) }) {
				conditions = append(conditions, fmt.Sprintf("EXISTS (SELECT FROM %s c WHERE %s)", stagingTable, k.refersTo("c", "t")))
			}
		}
	}
	return strings.Join(conditions, " OR ")
}

// followed returns an SQL condition for the row with the alias t and its row of the file, with the alias s. It is true if the
// columns to which the foreign key refers differ, and another row would change with them by ON UPDATE CASCADE, SET NULL or SET
// DEFAULT. If the row t were deleted and inserted again, the other row would keep its value, and might then refer to a
// different row. followed returns "" if this condition can't be true for any row.
func (m *stagedMerge) followed(k *foreignKey) string {
	lacks := func(name string) bool { return !slices.Contains(m.columns.names, name) }
	columns := slices.DeleteFunc(slices.Clone(k.Referenced), lacks)
	if !k.followsUpdates() || len(columns) == 0 {
		return ""
	}
	condition := m.differ(columns)
	if !k.readable() {
		return condition
	}
	where := k.refersTo("c", "t")
	// Leave out rows that are in the file, because they get the file's values anyway.
	if k.From && !slices.ContainsFunc(k.Columns, lacks) {
		where += fmt.Sprintf(" AND NOT EXISTS (SELECT FROM %s x WHERE %s)", stagingTable, sameKey(m.table, "x", "c"))
	}
	return fmt.Sprintf("(%s AND EXISTS (SELECT FROM %s c WHERE %s))", condition, k.ChildRows, where)
}

// mayTurnOffTriggers reports whether mergeWithoutTriggers can work. It can't work if the table has rules, which would still
// act, or a foreign key with a PERIOD, which checkForeignKeys can't check.
func (m *stagedMerge) mayTurnOffTriggers() bool {
	return len(m.hooks.Rules) == 0 && !slices.ContainsFunc(m.hooks.ForeignKeys, func(k foreignKey) bool { return k.Period })
}
