package restore

import (
	"fmt"
	"slices"
	"strings"

	"capture/internal/foreign"
	"capture/internal/postgres"
	"capture/internal/statefile"
	"capture/snapshot/rowjson"
	"capture/store/manifest"
)

// mapColumns returns the columnMap of a table for the members of the file's first row. If the table lacks a column, the error
// suggests the type that the manifest gives for it. The manifest may be nil.
func mapColumns(table *postgres.Table, first []statefile.Member, manifest *manifest.Manifest) (*columnMap, error) {
	m := &columnMap{table: table, at: make(map[string]int, len(first))}
	columns := make(map[string]int, len(table.Columns))
	for i := range table.Columns {
		columns[table.Columns[i].Name] = i
	}
	var unknown []string
	for _, member := range first {
		name := string(member.Name)
		if _, ok := m.at[name]; ok {
			return nil, fmt.Errorf("the first row has %s twice", foreign.Text(postgres.QuoteIdentifier(name)))
		}
		m.at[name] = len(m.names)
		m.names = append(m.names, name)
		i, ok := columns[name]
		if !ok {
			unknown = append(unknown, name)
			continue
		}
		c := &table.Columns[i]
		m.targets = append(m.targets, target{
			column:      c,
			generated:   c.Generated != "",
			jsonNull:    c.NotNull && c.Type.Kind == rowjson.JSON,
			plainString: c.Type.Kind == rowjson.Text || c.Type.Kind == rowjson.Number,
			isTime:      rowjson.IsTime(&c.Type),
		})
	}
	if len(unknown) > 0 {
		return nil, explainUnknownColumns(table, unknown, manifest)
	}
	for _, k := range table.Key {
		name := table.Columns[k].Name
		i, ok := m.at[name]
		if !ok {
			return nil, fmt.Errorf("the file lacks column %s, which is part of the key of table %s", postgres.QuoteIdentifier(name), table.Name())
		}
		m.key = append(m.key, i)
	}
	m.compareTypes(manifest)
	return m, m.noteMissing()
}

// explainUnknownColumns returns the error for members of the file that have no column in the table.
func explainUnknownColumns(table *postgres.Table, names []string, manifest *manifest.Manifest) error {
	const maxNamed = 10 // maximum number of columns that the error names
	var add []string
	for _, name := range names[:min(len(names), maxNamed)] {
		typ := "<type>"
		if manifest != nil {
			i := slices.IndexFunc(manifest.Columns, func(c rowjson.Column) bool { return c.Name == name })
			if i >= 0 && isPlainTypeName(manifest.Columns[i].TypeName) {
				typ = manifest.Columns[i].TypeName
			}
		}
		add = append(add, "ADD COLUMN "+postgres.QuoteIdentifier(name)+" "+typ)
	}
	what := "column " + columnList("", names[:min(len(names), maxNamed)])
	if len(names) > 1 {
		what = "columns" + strings.TrimPrefix(what, "column")
	}
	if len(names) > maxNamed {
		what += fmt.Sprintf(" and %d more", len(names)-maxNamed)
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("the file has %s, which table %s lacks", foreign.Text(what), table.Name()),
		Reason:  "its values would be lost",
		Hint:    fmt.Sprintf("ALTER TABLE %s %s; or take it out of the file", table.Name().Quoted(), foreign.Text(strings.Join(add, ", "))),
	}
}

// noteMissing adds a note for each column that the file lacks. The note says which value the column gets in new rows.
// noteMissing returns an error if the column is NOT NULL and has neither a default nor an identity.
func (m *columnMap) noteMissing() error {
	for i := range m.table.Columns {
		c := &m.table.Columns[i]
		if _, ok := m.at[c.Name]; ok || c.Generated != "" {
			continue
		}
		gets := "NULL"
		switch {
		case c.Identity != "":
			gets = "the next number of its sequence"
		case c.Default != "":
			gets = "its default, " + c.Default
		case c.NotNull:
			return &postgres.Problem{
				Summary: fmt.Sprintf("the file lacks column %s of table %s, which may not be NULL and has no default", postgres.QuoteIdentifier(c.Name), m.table.Name()),
				Hint:    fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET DEFAULT …;", m.table.Name().Quoted(), postgres.QuoteIdentifier(c.Name)),
			}
		}
		m.notes = append(m.notes, fmt.Sprintf("column %s is not in the file: each new row gets %s", postgres.QuoteIdentifier(c.Name), gets))
	}
	return nil
}
