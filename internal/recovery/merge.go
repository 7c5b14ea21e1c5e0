package recovery

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"capture/internal/postgres"
)

// staging is the temporary table that holds the file's rows while they are compared with the table's: their number and
// line, and their columns with the table's types, without its constraints.
const staging = "pg_temp.capture_restore"

// merge brings the rows in by way of a temporary table: deletes first, then overwrites, then inserts, so that a value that
// has to be unique is free when a row needs it.
func (r *restore) merge(ctx context.Context) error {
	m := &merge{restore: r, keys: make([]string, len(r.plan.key))}
	for i, k := range r.plan.key {
		m.keys[i] = r.plan.names[k]
	}
	m.number, m.line = m.unused("row"), m.unused("line")
	if err := m.stage(ctx); err != nil {
		return err
	}
	for _, step := range []func(context.Context) error{m.duplicates, m.deleteExtra, m.conflicts, m.insert} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	return nil
}

type merge struct {
	*restore
	keys         []string // the key's columns
	number, line string   // the columns of the staging table that are not the file's
}

// unused is a name like base that no member of the file has.
func (m *merge) unused(base string) string {
	for slices.Contains(m.plan.names, base) {
		base += "_"
	}
	return base
}

// stage copies the file into the temporary table.
func (m *merge) stage(ctx context.Context) error {
	sql := fmt.Sprintf("CREATE TEMPORARY TABLE capture_restore ON COMMIT DROP AS SELECT 0::bigint AS %s, 0::bigint AS %s, %s FROM %s WITH NO DATA",
		postgres.QuoteIdentifier(m.number), postgres.QuoteIdentifier(m.line), idents(m.plan.names), m.plan.table.Name().Quoted())
	if _, err := m.tx.Exec(ctx, sql); err != nil {
		return explain("make a temporary table", err)
	}
	l := m.loader(staging, true)
	if err := l.run(ctx, m.first, m.at); err != nil {
		m.broken = true
		return err
	}
	m.report("comparing", l.rows, m.in.sums.Bytes())
	if _, err := m.tx.Exec(ctx, "ANALYZE "+staging); err != nil {
		return explain("analyze the temporary table", err)
	}
	return nil
}

// duplicates refuses a file that has a key twice.
func (m *merge) duplicates(ctx context.Context) error {
	sql := fmt.Sprintf("SELECT %s, min(s.%s), max(s.%[2]s) FROM %s s GROUP BY %s HAVING count(*) > 1 LIMIT 1",
		keyList("s", m.keys), postgres.QuoteIdentifier(m.line), staging, columns("s", m.keys))
	rows, err := m.tx.Query(ctx, sql)
	if err != nil {
		return explain("look for keys that are in the file twice", err)
	}
	defer rows.Close()
	if rows.Next() {
		var key string
		var first, last int64
		if err := rows.Scan(&key, &first, &last); err != nil {
			return err
		}
		return fmt.Errorf("the file has the key %s twice, at lines %d and %d", key, first, last)
	}
	return explainNil("look for keys that are in the file twice", rows.Err())
}

func (m *merge) deleteExtra(ctx context.Context) error {
	if !m.o.DeleteExtra {
		return nil
	}
	where := fmt.Sprintf(" WHERE NOT EXISTS (SELECT FROM %s s WHERE %s)", staging, equal("s", "t", m.keys))
	change, err := m.count(ctx, "SELECT "+keyList("t", m.keys)+" FROM "+m.plan.table.FromClause()+" t"+where, keyOrder("t", m.keys))
	if err != nil {
		return err
	}
	if _, err := m.tx.Exec(ctx, "DELETE FROM "+m.plan.table.Name().Quoted()+" t"+where); err != nil {
		return explain("delete the rows that are not in the file", err)
	}
	m.result.Deleted = change
	return nil
}

// conflicts deals with the file's rows whose key the table has.
func (m *merge) conflicts(ctx context.Context) error {
	both := fmt.Sprintf("%s t JOIN %s s ON %s", m.plan.table.FromClause(), staging, equal("s", "t", m.keys))
	all, err := m.count(ctx, "SELECT "+keyList("s", m.keys)+" FROM "+both, "s."+postgres.QuoteIdentifier(m.number))
	if err != nil || all.Rows == 0 {
		return err
	}
	switch m.o.OnConflict {
	case Fail:
		var line int64
		sql := fmt.Sprintf("SELECT s.%s FROM %s ORDER BY s.%s LIMIT 1", postgres.QuoteIdentifier(m.line), both, postgres.QuoteIdentifier(m.number))
		if err := m.tx.QueryRow(ctx, sql).Scan(&line); err != nil {
			return explain("look for rows that are in the table already", err)
		}
		return &ConflictError{m.result.Table, all.Rows, fmt.Sprintf("line %d (%s %s)", line, strings.Join(m.keys, ", "), all.Keys[0])}
	case Skip:
		m.result.Skipped = all
		return nil
	}
	return m.overwrite(ctx, both, all.Rows)
}

// overwrite updates the rows that differ. They are compared as text, since not every type can be compared.
func (m *merge) overwrite(ctx context.Context, both string, all int64) error {
	var set, mine, theirs []string
	for i, name := range m.plan.names {
		if m.plan.into[i].computed || slices.Contains(m.keys, name) {
			continue
		}
		set = append(set, postgres.QuoteIdentifier(name)+" = s."+postgres.QuoteIdentifier(name))
		mine = append(mine, "t."+postgres.QuoteIdentifier(name))
		theirs = append(theirs, "s."+postgres.QuoteIdentifier(name))
	}
	if len(set) == 0 {
		m.result.Unchanged = all
		return nil
	}
	differ := fmt.Sprintf("ROW(%s)::text IS DISTINCT FROM ROW(%s)::text", join(mine), join(theirs))
	change, err := m.count(ctx, "SELECT "+keyList("s", m.keys)+" FROM "+both+" WHERE "+differ, "s."+postgres.QuoteIdentifier(m.number))
	if err != nil {
		return err
	}
	m.result.Overwritten, m.result.Unchanged = change, all-change.Rows
	sql := fmt.Sprintf("UPDATE %s t SET %s FROM %s s WHERE %s AND %s", m.plan.table.Name().Quoted(), join(set), staging,
		equal("s", "t", m.keys), differ)
	_, err = m.each(ctx, sql)
	return err
}

func (m *merge) insert(ctx context.Context) error {
	missing := fmt.Sprintf("NOT EXISTS (SELECT FROM %s t WHERE %s)", m.plan.table.FromClause(), equal("s", "t", m.keys))
	change, err := m.count(ctx, "SELECT "+keyList("s", m.keys)+" FROM "+staging+" s WHERE "+missing, "s."+postgres.QuoteIdentifier(m.number))
	if err != nil {
		return err
	}
	given := m.plan.given()
	values := make([]string, len(given))
	for i, name := range given {
		values[i] = "s." + name
	}
	sql := fmt.Sprintf("INSERT INTO %s (%s) OVERRIDING SYSTEM VALUE SELECT %s FROM %s s WHERE %s", m.plan.table.Name().Quoted(),
		join(given), join(values), staging, missing)
	change.Rows, err = m.each(ctx, sql)
	m.result.Inserted = change
	return err
}

// each runs a statement over the staging table, s. Where a row of the file makes it fail, it is run over ever smaller runs of
// rows, and the error names the row.
func (m *merge) each(ctx context.Context, sql string) (int64, error) {
	var affected int64
	run := func(lo, hi int) error {
		return attempt(ctx, m.tx, func() error {
			tag, err := m.tx.Exec(ctx, fmt.Sprintf("%s AND s.%s >= %d AND s.%[2]s < %[4]d", sql, postgres.QuoteIdentifier(m.number), lo, hi))
			if err == nil {
				affected += tag.RowsAffected()
			}
			return err
		})
	}
	lo, hi := 1, m.from.rows+1
	err := run(lo, hi)
	if err == nil || !refused(err) {
		return affected, explainNil("write to "+m.result.Table, err)
	}
	for hi-lo > 1 {
		mid := lo + (hi-lo)/2
		half := run(lo, mid)
		switch {
		case half == nil:
			lo = mid
		case refused(half):
			hi, err = mid, half
		default:
			return 0, explain("write to "+m.result.Table, half)
		}
	}
	if last := run(lo, hi); last != nil {
		err = last
	}
	var line int64
	var key string
	where := fmt.Sprintf("SELECT s.%s, %s FROM %s s WHERE s.%s = %d", postgres.QuoteIdentifier(m.line), keyList("s", m.keys), staging, postgres.QuoteIdentifier(m.number), lo)
	if qerr := m.tx.QueryRow(ctx, where).Scan(&line, &key); qerr != nil {
		return 0, explain("write to "+m.result.Table, err)
	}
	return 0, &rowError{place: fmt.Sprintf("line %d (%s %s)", line, strings.Join(m.keys, ", "), key), err: err}
}

// count counts the rows of a query for keys, and takes the first of them in the given order.
func (r *restore) count(ctx context.Context, sql, order string) (Change, error) {
	var c Change
	if err := r.tx.QueryRow(ctx, "SELECT count(*) FROM ("+sql+") _").Scan(&c.Rows); err != nil {
		return c, explain("compare the file with "+r.result.Table, err)
	}
	if c.Rows == 0 {
		return c, nil
	}
	rows, err := r.tx.Query(ctx, fmt.Sprintf("%s ORDER BY %s LIMIT %d", sql, order, shownKeys))
	if err != nil {
		return c, explain("compare the file with "+r.result.Table, err)
	}
	defer rows.Close()
	for rows.Next() {
		var key string
		if err := rows.Scan(&key); err != nil {
			return c, err
		}
		c.Keys = append(c.Keys, key)
	}
	return c, explainNil("compare the file with "+r.result.Table, rows.Err())
}

func explainNil(what string, err error) error {
	if err == nil {
		return nil
	}
	return explain(what, err)
}

func join(list []string) string { return strings.Join(list, ", ") }

// columns are the columns of a table's alias.
func columns(alias string, names []string) string {
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = alias + "." + postgres.QuoteIdentifier(name)
	}
	return join(list)
}

func keyOrder(alias string, keys []string) string { return columns(alias, keys) }

// keyList is an expression for the key as one text.
func keyList(alias string, keys []string) string {
	list := make([]string, len(keys))
	for i, name := range keys {
		list[i] = alias + "." + postgres.QuoteIdentifier(name) + "::text"
	}
	return "pg_catalog.concat_ws(', ', " + join(list) + ")"
}

// equal is the condition that two aliases have the same key.
func equal(a, b string, keys []string) string {
	list := make([]string, len(keys))
	for i, name := range keys {
		list[i] = fmt.Sprintf("%s.%s = %s.%[2]s", a, postgres.QuoteIdentifier(name), b)
	}
	return strings.Join(list, " AND ")
}
