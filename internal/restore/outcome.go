package restore

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// OtherTable is another table whose rows changed because rows of the restored table did. The cause is a foreign key with an
// action, such as ON DELETE CASCADE, or a trigger or rule.
type OtherTable struct {
	Table    string `json:"table"`
	Inserted int64  `json:"inserted,omitempty"`
	Updated  int64  `json:"updated,omitempty"`
	Deleted  int64  `json:"deleted,omitempty"`
}

// tableCounts are the numbers of rows that the current transaction has inserted, updated and deleted in a table.
type tableCounts [3]int64

// countsSQL returns the tableCounts of all tables that the transaction has written to, except temporary tables and the restored
// table with its partitions. The server also counts changes that were rolled back to a savepoint. $1 is the table's OID.
const countsSQL = `
	SELECT pg_catalog.quote_ident(n.nspname) || '.' || pg_catalog.quote_ident(c.relname), x.ins, x.upd, x.del
	FROM pg_catalog.pg_class c
	JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
	CROSS JOIN LATERAL (SELECT pg_catalog.pg_stat_get_xact_tuples_inserted(c.oid) AS ins, pg_catalog.pg_stat_get_xact_tuples_updated(c.oid) AS upd,
		pg_catalog.pg_stat_get_xact_tuples_deleted(c.oid) AS del) x
	WHERE c.relkind = 'r' AND c.relpersistence <> 't' AND n.nspname <> 'pg_catalog' AND x.ins + x.upd + x.del > 0
		AND c.oid NOT IN (SELECT $1::bigint::oid UNION SELECT relid FROM pg_catalog.pg_partition_tree($1::bigint::oid::regclass))`

// loadCounts returns the tableCounts of the other tables by their SQL names.
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

// finish fills in the result with what Postgres did, and compares the table with the file if something in the database may have
// left out or changed rows.
func (m *stagedMerge) finish(ctx context.Context, done written) (err error) {
	r := m.result
	r.Inserted.Rows, r.Overwritten.Rows = done.inserted, done.updated+done.returned
	if m.planned.deleted > 0 {
		r.Deleted.Rows = done.deleted
	}
	if done.withoutTriggers {
		r.Notes = append(r.Notes, "rows exchange values of a unique constraint, so triggers and foreign keys did not act; the foreign keys were checked afterwards")
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

// compare compares the table with the file after all triggers have fired. It returns an error if the table differs although it
// had to become what the file says.
func (m *stagedMerge) compare(ctx context.Context) (err error) {
	if m.result.Others, err = countOthers(ctx, m.tx, m.table, m.baseline); err != nil {
		return err
	}
	if !m.hooks.mayChange(true) && !m.generatedDiffer && !m.hooks.actsOnItself() {
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

// countDifferences counts the rows that are missing in the table, those that have other values there, and those that should be
// gone.
func (m *stagedMerge) countDifferences(ctx context.Context) (err error) {
	r := m.result
	from := fmt.Sprintf("%s s LEFT JOIN %s t ON %s", stagingTable, m.table.FromClause(), m.same())
	if !m.exact { // only the rows that were written count
		from = fmt.Sprintf("%s s JOIN %s p ON p.number OPERATOR(pg_catalog.=) %s LEFT JOIN %s t ON %s", stagingTable, planTable, m.number, m.table.FromClause(), m.same())
	}
	leftOut, changed := "t.tableoid IS NULL", "t.tableoid IS NOT NULL AND "+m.differ(m.columns.names)
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
		"SELECT "+keyExpression("t", m.key)+" FROM "+m.table.FromClause()+" t WHERE "+m.extra(), columnList("t", m.key))
	return err
}

// countWithoutKey is countDifferences for a table without a key, which was empty.
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
	if len(m.hooks.Triggers)+len(m.hooks.Rules) == 0 {
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
			return fmt.Sprintf(", the first with the key %s", c.Keys[0])
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
