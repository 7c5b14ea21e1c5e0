package postgres

import (
	"fmt"
	"slices"
	"strings"
)

// SelectList returns the table's columns as an SQL select list, for a table without an alias. Each expression gives the
// value's text form as its type's output function prints it, in a type whose binary form is that text; for a column whose
// type is [rowjson.Type.NeedsServer], it gives the JSON value.
func (t *Table) SelectList() string { return strings.Join(t.selectExprs, ", ") }

// FromClause returns the table as it appears after FROM.
func (t *Table) FromClause() string {
	if t.Partitioned {
		return t.Name().Quoted()
	}
	return "ONLY " + t.Name().Quoted()
}

// CopyQuery returns the COPY that sends the table in binary format, with the columns of [Table.SelectList]. where is empty or
// a condition with its keyword (" WHERE …").
func (t *Table) CopyQuery(where string) string {
	return "COPY (SELECT " + t.SelectList() + " FROM " + t.FromClause() + where + ") TO STDOUT (FORMAT binary)"
}

// RowsByKeyQuery returns a query for the rows with the given keys, with the columns of [Table.SelectList]; ask for results in
// binary format. Its parameters $1, … are one text array for each column of the key, all of the same length. A key that no
// longer exists yields no row.
func (t *Table) RowsByKeyQuery() string {
	var columns, arrays, names, casts []string
	for i, k := range t.Key {
		c, name := &t.Columns[k], fmt.Sprintf("k%d", i+1)
		columns = append(columns, QuoteIdentifier(c.Name))
		arrays = append(arrays, fmt.Sprintf("pg_catalog.unnest($%d::text[])", i+1))
		names = append(names, name)
		casts = append(casts, "g."+name+"::"+c.TypeName)
	}
	return "SELECT " + t.SelectList() + " FROM " + t.FromClause() +
		" WHERE (" + strings.Join(columns, ", ") + ") IN (SELECT " + strings.Join(casts, ", ") +
		" FROM ROWS FROM (" + strings.Join(arrays, ", ") + ") AS g(" + strings.Join(names, ", ") + "))"
}

// GeneratedColumnsQuery returns a query for the columns that are not published, in their order. Its parameters are the text
// forms of the row's columns at the indexes in from. The expression of a generated column refers to its own row only, so the
// query does not read the table.
func (t *Table) GeneratedColumnsQuery() (query string, from []int) {
	var values, inputs []string
	for i, c := range t.Columns {
		if c.Published {
			continue
		}
		values = append(values, fmt.Sprintf("CAST((%s) AS %s)", c.Default, c.TypeName))
		for k := range t.columns {
			if slices.Contains(t.columns[i].Sources, t.columns[k].Num) && !slices.Contains(from, k) {
				from = append(from, k)
			}
		}
	}
	for n, k := range from {
		value := fmt.Sprintf("CAST($%d AS %s)", n+1, t.Columns[k].TypeName)
		if c := t.columns[k].Collation; c != "" {
			value += " COLLATE " + c
		}
		inputs = append(inputs, value+" AS "+QuoteIdentifier(t.Columns[k].Name))
	}
	return fmt.Sprintf("SELECT %s FROM (SELECT %s) AS row", strings.Join(values, ", "), strings.Join(inputs, ", ")), from
}
