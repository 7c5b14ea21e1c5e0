package restore

import (
	"context"
	"fmt"
	"strings"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

// finish sets the row counts of the result to those that Postgres has reported. It also adds the keys of the first rows that
// were inserted or overwritten. If something in the database may have left out rows, finish adds only keys that are in the
// table.
func (m *stagedMerge) finish(ctx context.Context, done written) (err error) {
	r := m.result
	if done.removed != done.returned {
		return &postgres.Problem{
			Summary: fmt.Sprintf("%s left out %s of table %s that had to be deleted and inserted again", m.hooks.suspects(), rowCount(done.removed-done.returned), m.table.Name()),
			Reason:  "the rows would be lost",
			Hint:    "use --disable-triggers, as a superuser or the table's owner",
		}
	}
	r.Inserted.Rows, r.Overwritten.Rows = done.inserted, done.updated+done.returned
	if m.planned.deleted > 0 {
		r.Deleted.Rows = done.deleted
	}
	if done.withoutTriggers {
		r.Notes = append(r.Notes, "rows could not be updated in place, so they were deleted and inserted again; triggers and foreign keys did not act; the foreign keys were checked afterwards")
	}
	for _, c := range []struct {
		change    *Change
		condition string
	}{{&r.Inserted, "p.new"}, {&r.Overwritten, "NOT p.new"}} {
		if c.change.Rows == 0 {
			continue
		}
		present := c.condition
		if m.hooks.mayChange(true) && len(m.key) > 0 {
			present += fmt.Sprintf(" AND EXISTS (SELECT FROM %s t WHERE %s)", m.table.FromClause(), m.same())
		}
		if c.change.Keys, err = m.firstKeys(ctx, m.staged(present)); err != nil {
			return err
		}
	}
	return nil
}

// compare counts what changed in other tables. It also compares the table with the file if something in the database may
// have changed the restored rows. Before the call, all deferred triggers must have fired. If m.exact is set, a difference
// between the table and the file is an error. Otherwise, compare counts the differences and returns no error for them.
func (m *stagedMerge) compare(ctx context.Context) (err error) {
	if m.result.Others, err = countOthers(ctx, m.tx, m.table, m.baseline); err != nil {
		return err
	}
	// Foreign keys and triggers of the other tables may have changed the restored rows in turn.
	if !m.hooks.mayChange(true) && !m.generatedDiffer && !m.hooks.actsOnItself() && len(m.result.Others) == 0 {
		return nil
	}
	if len(m.key) == 0 {
		err = m.countWithoutKey(ctx)
	} else {
		err = m.countDifferences(ctx)
	}
	if err != nil {
		return err
	}
	r := m.result
	if r.LeftOut.Rows+r.Changed.Rows+r.Remaining.Rows > 0 {
		r.By = m.hooks.suspects()
		if len(m.hooks.Triggers)+len(m.hooks.Rules) == 0 && m.generatedDiffer {
			r.By = "generated columns with another expression than in the file"
		}
		if m.exact {
			return m.explainDifference()
		}
	}
	return nil
}

// saveSkipped saves the skipped rows of the table, if a trigger, rule or foreign key may delete or change them during the restore.
func (m *stagedMerge) saveSkipped(ctx context.Context) error {
	if m.options.OnConflict != Skip || m.result.Skipped.Rows == 0 || !m.hooks.mayChange(true) && !m.hooks.actsOnOthers() {
		return nil
	}
	m.skipped = "pg_temp.capture_restore_skipped"
	_, err := m.tx.Exec(ctx, fmt.Sprintf("CREATE TEMPORARY TABLE capture_restore_skipped ON COMMIT DROP AS SELECT %s AS number, %s AS hash FROM %s s JOIN %s t ON %s",
		m.number, rowHash, stagingTable, m.table.FromClause(), m.same()))
	if err == nil {
		_, err = m.tx.Exec(ctx, "ANALYZE "+m.skipped)
	}
	return err
}

// rowHash is an SQL expression for a hash of all values of the row t.
const rowHash = `pg_catalog.hashtextextended(pg_catalog.row_to_json(t)::pg_catalog.text COLLATE pg_catalog."C", 0)`

// countDifferences compares the table with the file after the restore. It counts the rows that the table lacks, the rows
// that have other values in the table, and the rows that should have been deleted. A skipped row counts as changed if it
// differs from what it was before the restore, for example because of a trigger.
func (m *stagedMerge) countDifferences(ctx context.Context) (err error) {
	r := m.result
	from := fmt.Sprintf("%s s LEFT JOIN %s t ON %s", stagingTable, m.table.FromClause(), m.same())
	leftOut, changed := "t.tableoid IS NULL", "t.tableoid IS NOT NULL AND "+m.differ(m.columns.names)
	plan := fmt.Sprintf("JOIN %s p ON p.number OPERATOR(pg_catalog.=) %s", planTable, m.number)
	switch {
	case m.exact:
	case m.skipped == "": // count only differences in rows that the restore has written
		from = strings.Replace(from, "LEFT JOIN", plan+" LEFT JOIN", 1)
	default:
		from += fmt.Sprintf(" LEFT %s LEFT JOIN %s k ON k.number OPERATOR(pg_catalog.=) %s", plan, m.skipped, m.number)
		changed = fmt.Sprintf("t.tableoid IS NOT NULL AND CASE WHEN p.number IS NULL THEN k.hash OPERATOR(pg_catalog.<>) %s ELSE %s END", rowHash, m.differ(m.columns.names))
	}
	sql := fmt.Sprintf("SELECT pg_catalog.count(*) FILTER (WHERE %s), pg_catalog.count(*) FILTER (WHERE %s) FROM %s", leftOut, changed, from)
	if err := m.tx.QueryRow(ctx, sql).Scan(&r.LeftOut.Rows, &r.Changed.Rows); err != nil {
		return explain("compare the table with the file", err)
	}
	if r.LeftOut.Rows > 0 {
		if r.LeftOut.Keys, err = m.firstKeys(ctx, from+" WHERE "+leftOut); err != nil {
			return err
		}
	}
	if r.Changed.Rows > 0 {
		if r.Changed.Keys, err = m.firstKeys(ctx, from+" WHERE "+changed); err != nil {
			return err
		}
	}
	if !m.exact && !m.options.DeleteExtra {
		return nil
	}
	r.Remaining, err = countKeys(ctx, m.tx, m.table,
		"SELECT "+shownKeyExpression(m.table, "t", m.key)+" FROM "+m.table.FromClause()+" t WHERE "+m.extra(), columnList("t", m.key))
	return err
}

// countWithoutKey is like countDifferences, but for a table without a key. Such a table was empty before the restore, so all
// of its rows come from the restore.
func (m *stagedMerge) countWithoutKey(ctx context.Context) error {
	r := m.result
	row := func(alias string) string {
		return "pg_catalog.row_to_json(ROW(" + columnList(alias, m.columns.names) + "))::pg_catalog.text"
	}
	var total, different int64
	err := m.tx.QueryRow(ctx, fmt.Sprintf("SELECT (SELECT pg_catalog.count(*) FROM %[1]s t), (SELECT pg_catalog.count(*) FROM (SELECT %[2]s FROM %[3]s s EXCEPT ALL SELECT %[4]s FROM %[1]s t) _)",
		m.table.FromClause(), row("s"), stagingTable, row("t"))).Scan(&total, &different)
	r.LeftOut.Rows = max(0, int64(m.rows)-total)
	r.Remaining.Rows = max(0, total-int64(m.rows))
	r.Changed.Rows = different - r.LeftOut.Rows
	return explain("compare the table with the file", err)
}

// explainDifference returns the error for a table that did not become what the file says.
func (m *stagedMerge) explainDifference() error {
	r := m.result
	var parts []string
	for _, p := range []struct {
		rows int64
		what string
	}{{r.LeftOut.Rows, "left out"}, {r.Changed.Rows, "changed"}, {r.Remaining.Rows, "kept or added"}} {
		if p.rows > 0 {
			parts = append(parts, fmt.Sprintf("%s %s", p.what, rowCount(p.rows)))
		}
	}
	hint := "use --disable-triggers, as a superuser or the table's owner; or --on-conflict skip, which keeps what the trigger makes of the rows"
	if len(m.hooks.Triggers)+len(m.hooks.Rules) == 0 && !m.generatedDiffer {
		hint = "a foreign key may have acted on the rows; use --disable-triggers, as a superuser"
	} else if len(m.hooks.Triggers)+len(m.hooks.Rules) == 0 {
		hint = "give the columns the expressions that the manifest has; or use --on-conflict skip, which keeps what Postgres computes"
	} else if m.options.DisableTriggers {
		hint = "ALTER TABLE … DISABLE TRIGGER …, as the table's owner: a trigger that is enabled ALWAYS, or for replicas, fires with --disable-triggers, too; or use --on-conflict skip"
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("%s %s of %d%s", r.By, strings.Join(parts, " and "), m.rows, m.firstDifference()),
		Reason:  fmt.Sprintf("table %s would not be what the file says", m.table.Name()),
		Hint:    hint,
	}
}

// firstDifference names the first row that differs, for explainDifference.
func (m *stagedMerge) firstDifference() string {
	for _, c := range []Change{m.result.LeftOut, m.result.Changed, m.result.Remaining} {
		if len(c.Keys) > 0 {
			return fmt.Sprintf(", the first with the key %s", foreign.Text(c.Keys[0]))
		}
	}
	return ""
}

func rowCount(n int64) string {
	if n == 1 {
		return "1 row"
	}
	return fmt.Sprintf("%d rows", n)
}
