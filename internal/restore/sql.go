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

// countKeys counts the rows of a query that selects keys. It returns the count and the first few keys in the given order.
func countKeys(ctx context.Context, tx pgx.Tx, table *postgres.Table, query, order string) (Change, error) {
	action := "compare the file with " + table.Name().String()
	var c Change
	if err := tx.QueryRow(ctx, "SELECT count(*) FROM ("+query+") _").Scan(&c.Rows); err != nil || c.Rows == 0 {
		return c, explain(action, err)
	}
	rows, err := tx.Query(ctx, fmt.Sprintf("%s ORDER BY %s LIMIT %d", query, order, shownKeys))
	if err == nil {
		c.Keys, err = pgx.CollectRows(rows, pgx.RowTo[string])
	}
	return c, explain(action, err)
}

// countRows returns the number of rows of the table.
func countRows(ctx context.Context, q postgres.Querier, table *postgres.Table) (rows int64, err error) {
	err = q.QueryRow(ctx, "SELECT count(*) FROM "+table.FromClause()).Scan(&rows)
	return rows, explain("count the rows of "+table.Name().String(), err)
}

// columnList returns a comma-separated list of columns. If alias is not "", it qualifies each column with the alias.
func columnList(alias string, names []string) string {
	if alias != "" {
		alias += "."
	}
	list := make([]string, len(names))
	for i, name := range names {
		list[i] = alias + postgres.QuoteIdentifier(name)
	}
	return strings.Join(list, ", ")
}

// keyExpression returns an SQL expression for the whole key as a single text.
func keyExpression(alias string, key []string) string {
	list := make([]string, len(key))
	for i, name := range key {
		list[i] = alias + "." + postgres.QuoteIdentifier(name) + "::pg_catalog.text"
	}
	// Without COLLATE, columns with different collations would give the expression no collation.
	return "pg_catalog.concat_ws(', ', " + strings.Join(list, ", ") + `) COLLATE pg_catalog."C"`
}

// shownKeyExpression is like keyExpression, but gives [rowjson.HiddenText] if hidesKey is true for the table.
func shownKeyExpression(table *postgres.Table, alias string, key []string) string {
	if hidesKey(table) {
		return "'" + rowjson.HiddenText + "'::pg_catalog.text"
	}
	return keyExpression(alias, key)
}

// hidesKey reports whether the table's keys may contain users' texts that must not be shown; see [rowjson.Shape.UnprovenKey].
func hidesKey(table *postgres.Table) bool {
	return table.UnprovenKey && slices.ContainsFunc(table.Key, func(k int) bool {
		t := &table.Columns[k].Type
		return t.Kind != rowjson.Number && !rowjson.IsTime(t)
	})
}

// sameKey returns an SQL condition that is true if the rows of the aliases a and b have the same key.
func sameKey(table *postgres.Table, a, b string) string {
	list := make([]string, len(table.Key))
	for i, k := range table.Key {
		name := postgres.QuoteIdentifier(table.Columns[k].Name)
		list[i] = table.KeyEqual(i, a+"."+name, b+"."+name)
	}
	return strings.Join(list, " AND ")
}

// queryTexts returns the only column of a query's rows.
func queryTexts(ctx context.Context, tx pgx.Tx, sql string, args ...any) ([]string, error) {
	rows, err := tx.Query(ctx, sql, args...)
	if err != nil {
		return nil, err
	}
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
