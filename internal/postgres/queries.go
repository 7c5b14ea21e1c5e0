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
// longer exists yields no row. See [Table.KeyProblem].
func (t *Table) RowsByKeyQuery() string {
	var arrays, names, conditions []string
	for i := range t.Key {
		name := fmt.Sprintf("k%d", i+1)
		arrays = append(arrays, fmt.Sprintf("pg_catalog.unnest($%d::text[])", i+1))
		names = append(names, name)
		conditions = append(conditions, t.keyCondition(i, "g."+name))
	}
	return "SELECT " + t.SelectList() + " FROM " + t.FromClause() +
		" WHERE EXISTS (SELECT FROM ROWS FROM (" + strings.Join(arrays, ", ") + ") AS g(" + strings.Join(names, ", ") + ")" +
		" WHERE " + strings.Join(conditions, " AND ") + ")"
}

// KeyCondition returns the condition that a row of the table has the key of which the parameters $1, … are the text forms. It
// is for a table without an alias. See [Table.KeyProblem].
func (t *Table) KeyCondition() string {
	conditions := make([]string, len(t.Key))
	for i := range t.Key {
		conditions[i] = t.keyCondition(i, fmt.Sprintf("$%d::pg_catalog.text", i+1))
	}
	return strings.Join(conditions, " AND ")
}

// keyCondition returns the condition that column i of the key has the value of which text is the text form.
func (t *Table) keyCondition(i int, text string) string {
	column := t.Name().Quoted() + "." + QuoteIdentifier(t.Columns[t.Key[i]].Name)
	if len(t.keyOperators[i].Schemas) > 0 { // neither the type nor the operator can be named
		return "pg_catalog.concat(" + column + ") OPERATOR(pg_catalog.=) " + text
	}
	return column + " " + t.keyOperators[i].Operator + " " + text + "::" + t.columns[t.Key[i]].TypeName
}

// KeyEqual returns the condition that two values of column i of the key, given as expressions, are equal.
func (t *Table) KeyEqual(i int, a, b string) string {
	if len(t.keyOperators[i].Schemas) > 0 {
		return "pg_catalog.concat(" + a + ") OPERATOR(pg_catalog.=) pg_catalog.concat(" + b + ")"
	}
	return a + " " + t.keyOperators[i].Operator + " " + b
}

// KeyProblem returns a [*Problem] if the server cannot find rows by their keys without reading the whole table, because the
// user may not use the schema of a key column's type. Otherwise it returns nil.
func (t *Table) KeyProblem() error {
	for i, o := range t.keyOperators {
		if len(o.Schemas) > 0 {
			return problemf("the whole table is read instead of single rows",
				fmt.Sprintf("GRANT USAGE ON SCHEMA %s TO %s;", QuoteIdentifier(o.Schemas[0]), QuoteIdentifier(t.facts.User)),
				"no right to use schema %s, which has the type of key column %s",
				displayIdentifier(o.Schemas[0]), displayIdentifier(t.Columns[t.Key[i]].Name))
		}
	}
	return nil
}

// keySchemas returns the schemas besides pg_catalog that the types and operators of the key lie in.
func (t *Table) keySchemas() (schemas []string) {
	for _, o := range t.keyOperators {
		for _, s := range o.Needs {
			if !slices.Contains(schemas, s) {
				schemas = append(schemas, s)
			}
		}
	}
	return schemas
}

// GeneratedColumnsQuery returns a query for the columns that are not published, in their order. Its parameters are the text
// forms of the row's columns at the indexes in from, and have the types with the OIDs in types. The expression of a generated
// column refers to its own row only, so the query does not read the table.
func (t *Table) GeneratedColumnsQuery() (query string, from []int, types []uint32) {
	var values, inputs []string
	for i, c := range t.columns {
		if t.Columns[i].Published {
			continue
		}
		values = append(values, fmt.Sprintf("CAST((%s) AS %s)", c.Expression, c.TypeName))
		for k := range t.columns {
			if slices.Contains(c.Sources, t.columns[k].Num) && !slices.Contains(from, k) {
				from = append(from, k)
			}
		}
	}
	for n, k := range from {
		// The type comes with the parameter: its name would need the right to use its schema.
		value := fmt.Sprintf("$%d", n+1)
		if c := t.columns[k].Collation; c != "" {
			value += " COLLATE " + c
		}
		inputs = append(inputs, value+" AS "+QuoteIdentifier(t.Columns[k].Name))
		types = append(types, t.columns[k].Type)
	}
	return fmt.Sprintf("SELECT %s FROM (SELECT %s) AS row", strings.Join(values, ", "), strings.Join(inputs, ", ")), from, types
}
