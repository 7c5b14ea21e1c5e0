package postgres

import (
	"fmt"
	"slices"
	"strings"
)

// SelectList returns the table's columns as an SQL select list, for a query that gives the table no alias. Each expression
// returns the value as the text that the type's output function prints. The expression has a type such as text or cstring,
// whose binary form is the same text. If [rowjson.Type.NeedsServer] is true for the column's type, the expression returns the
// JSON value instead.
func (t *Table) SelectList() string { return strings.Join(t.selectExprs, ", ") }

// FromClause returns the table as it appears after FROM.
func (t *Table) FromClause() string {
	if t.Partitioned {
		return t.Name().Quoted()
	}
	return "ONLY " + t.Name().Quoted()
}

// CopyQuery returns a COPY statement that sends the table in binary format, with the columns of [Table.SelectList].
// whereClause is "" or a condition with its keyword (" WHERE …").
func (t *Table) CopyQuery(whereClause string) string {
	return "COPY (SELECT " + t.SelectList() + " FROM " + t.FromClause() + whereClause + ") TO STDOUT (FORMAT binary)"
}

// RowsByKeyQuery returns a query for the rows with the given keys, with the columns of [Table.SelectList]. Callers must request
// its results in binary format. The query has one parameter for each column of the key: an array of the column's values in
// all keys, as text. A key that no longer exists yields no row. The query reads the whole table if [Table.KeyProblem] returns
// an error.
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

// KeyCondition returns an SQL condition that is true for the row with a given key. It is for queries that give the table no
// alias. The parameters $1, … are the text forms of the key's columns. The query reads the whole table if [Table.KeyProblem]
// returns an error.
func (t *Table) KeyCondition() string {
	conditions := make([]string, len(t.Key))
	for i := range t.Key {
		conditions[i] = t.keyCondition(i, fmt.Sprintf("$%d::pg_catalog.text", i+1))
	}
	return strings.Join(conditions, " AND ")
}

// keyCondition returns an SQL condition that is true if column i of the key equals a value. text is an SQL expression for
// the text form of the value.
func (t *Table) keyCondition(i int, text string) string {
	column := t.Name().Quoted() + "." + QuoteIdentifier(t.Columns[t.Key[i]].Name)
	if o := &t.keyOperators[i]; o.isText() {
		return o.text(column) + " OPERATOR(pg_catalog.=) " + text
	}
	return column + " " + t.keyOperators[i].Operator + " " + text + "::" + t.columns[t.Key[i]].TypeName
}

// isText reports whether values are compared by their text. This is the case if the user may not use the schema of the type
// or the operator, or if the table has no key of its own.
func (o *keyOperator) isText() bool { return len(o.Schemas) > 0 || o.asText }

// text returns an SQL expression that converts the value of the given expression to text. If the table has no key of its own,
// the collation is "C", in which only equal bytes are equal. The column's collation is not needed, because there is no index
// that the query has to match.
func (o *keyOperator) text(expression string) string {
	if o.asText {
		return "pg_catalog.concat(" + expression + `) COLLATE pg_catalog."C"`
	}
	return "pg_catalog.concat(" + expression + ")"
}

// KeyEqual returns an SQL condition that is true if the expressions a and b are equal as values of the key's column i.
func (t *Table) KeyEqual(i int, a, b string) string {
	if o := &t.keyOperators[i]; o.isText() {
		return o.text(a) + " OPERATOR(pg_catalog.=) " + o.text(b)
	}
	return a + " " + t.keyOperators[i].Operator + " " + b
}

// KeyProblem returns a [*Problem] if the user may not use the schema of a key column's type or operator. The server must then
// read the whole table to find a row by its key. Otherwise KeyProblem returns nil.
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

// keySchemas returns the schemas of the key's types and operators, except pg_catalog.
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

// GeneratedColumnsQuery returns a query that computes the unpublished columns of one row, in the table's order. Its
// parameters are the text forms of the columns that the computation depends on. GeneratedColumnsQuery also returns the
// indexes of these columns and the OIDs of their types. A generated column depends only on its own row, so the query does
// not read the table.
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
		// The caller sends the type's OID with the parameter. If the query named the type instead, the user would need the
		// right to use the type's schema.
		value := fmt.Sprintf("$%d", n+1)
		if c := t.columns[k].Collation; c != "" {
			value += " COLLATE " + c
		}
		inputs = append(inputs, value+" AS "+QuoteIdentifier(t.Columns[k].Name))
		types = append(types, t.columns[k].Type)
	}
	return fmt.Sprintf("SELECT %s FROM (SELECT %s) AS row", strings.Join(values, ", "), strings.Join(inputs, ", ")), from, types
}
