package recovery

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"capture/internal/postgres"
	"capture/snapshot/rowjson"
	"capture/store"
)

// plan says which member of a row goes into which column. The file's first row decides: all others have the same members.
type plan struct {
	table *postgres.Table
	names []string // of the file's members, in the order of the first row
	into  []target // where each goes
	key   []int    // indexes into names of the key's columns
	notes []string // what the user should know of columns that do not match
}

type target struct {
	column   *rowjson.Column // nil where the member is left out
	computed bool            // a generated column: Postgres makes the value anew
	document bool            // JSON that may not be NULL: null is a value of it
	plain    bool            // a JSON string is the value's text form, as it is
}

// newPlan matches the columns of the table with the members of the file's first row by name. manifest, if there is one,
// knows the types of columns that the table lacks.
func newPlan(t *postgres.Table, first []member, manifest *store.Manifest) (*plan, error) {
	p := &plan{table: t}
	var unknown []string
	for _, m := range first {
		name := string(m.name)
		if slices.Contains(p.names, name) {
			return nil, fmt.Errorf("the first row has %s twice", postgres.QuoteIdentifier(name))
		}
		into := target{}
		i := slices.IndexFunc(t.Columns, func(c rowjson.Column) bool { return c.Name == name })
		if i < 0 {
			unknown = append(unknown, name)
		} else {
			c := &t.Columns[i]
			into = target{column: c, computed: c.Generated != "", document: c.NotNull && c.Type.Kind == rowjson.JSON,
				plain: c.Type.Kind == rowjson.Text || c.Type.Kind == rowjson.Number}
		}
		p.names = append(p.names, name)
		p.into = append(p.into, into)
	}
	if len(unknown) > 0 {
		return nil, unknownColumns(t, unknown, manifest)
	}
	for _, k := range t.Key {
		i := slices.Index(p.names, t.Columns[k].Name)
		if i < 0 {
			return nil, fmt.Errorf("the file lacks column %s, which is part of the key of table %s", postgres.QuoteIdentifier(t.Columns[k].Name), t.Name())
		}
		p.key = append(p.key, i)
	}
	return p, p.absent()
}

// unknownColumns is the error for members that the table has no column for.
func unknownColumns(t *postgres.Table, names []string, manifest *store.Manifest) error {
	var add []string
	for _, name := range names {
		typ := "<type>"
		if manifest != nil {
			if i := slices.IndexFunc(manifest.Columns, func(c rowjson.Column) bool { return c.Name == name }); i >= 0 {
				typ = manifest.Columns[i].TypeName
			}
		}
		add = append(add, "ADD COLUMN "+postgres.QuoteIdentifier(name)+" "+typ)
	}
	what := "column "
	if len(names) > 1 {
		what = "columns "
	}
	for i, name := range names {
		if i > 0 {
			what += ", "
		}
		what += postgres.QuoteIdentifier(name)
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("the file has %s, which table %s lacks", what, t.Name()),
		Reason:  "its values would be lost",
		Hint:    fmt.Sprintf("ALTER TABLE %s %s; or take it out of the file", t.Name().Quoted(), strings.Join(add, ", ")),
	}
}

// absent looks at the columns that the file does not have: they get their defaults.
func (p *plan) absent() error {
	for i := range p.table.Columns {
		c := &p.table.Columns[i]
		if slices.Contains(p.names, c.Name) || c.Generated != "" {
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
				Summary: fmt.Sprintf("the file lacks column %s of table %s, which may not be NULL and has no default", postgres.QuoteIdentifier(c.Name), p.table.Name()),
				Hint:    fmt.Sprintf("ALTER TABLE %s ALTER COLUMN %s SET DEFAULT …;", p.table.Name().Quoted(), postgres.QuoteIdentifier(c.Name)),
			}
		}
		p.notes = append(p.notes, fmt.Sprintf("column %s is not in the file: each new row gets %s", postgres.QuoteIdentifier(c.Name), gets))
	}
	return nil
}

// given are the quoted names of the columns that the file's values go into.
func (p *plan) given() []string {
	var names []string
	for i, into := range p.into {
		if !into.computed {
			names = append(names, postgres.QuoteIdentifier(p.names[i]))
		}
	}
	return names
}

var errColumns = errors.New("its columns are not those of the first row")

// match puts the members of a row into the order of the plan.
func (p *plan) match(ms []member) error {
	if len(ms) != len(p.names) {
		return errColumns
	}
	for i, name := range p.names {
		if string(ms[i].name) == name {
			continue
		}
		at := slices.IndexFunc(ms[i:], func(m member) bool { return string(m.name) == name })
		if at < 0 {
			return fmt.Errorf("%w: it lacks %s", errColumns, postgres.QuoteIdentifier(name))
		}
		ms[i], ms[i+at] = ms[i+at], ms[i]
	}
	return nil
}

// text appends the text form of the value of member i; it says false for NULL.
func (p *plan) text(dst []byte, i int, value []byte) ([]byte, bool, error) {
	into := &p.into[i]
	if isNull(value) && !into.document {
		return dst, false, nil
	}
	dst, err := rowjson.AppendText(dst, &into.column.Type, value)
	if err != nil {
		err = p.refuse(i, err)
	}
	return dst, true, err
}

// refuse is the error for a value that has no text form.
func (p *plan) refuse(i int, err error) error {
	return fmt.Errorf("column %s (%s) does not take the value: %w", postgres.QuoteIdentifier(p.names[i]), p.into[i].column.TypeName, err)
}

// keyText is the key of a row for people: vote_id 42.
func (p *plan) keyText(dst []byte, ms []member) []byte {
	for i, k := range p.key {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		dst = append(append(append(dst, p.names[k]...), ' '), clip(ms[k].value)...)
	}
	return dst
}

// keyShown is the key of a row without the names of its columns, as it is listed.
func (p *plan) keyShown(ms []member) string {
	var texts []string
	for _, k := range p.key {
		text, _, err := p.text(nil, k, ms[k].value)
		if err != nil {
			text = ms[k].value
		}
		texts = append(texts, string(text))
	}
	return strings.Join(texts, ", ")
}

// clip bounds what is shown of a value.
func clip(value []byte) []byte {
	const most = 80
	if len(value) <= most {
		return value
	}
	return append(slices.Clone(value[:most]), "…"...)
}

func idents(names []string) string {
	quoted := make([]string, len(names))
	for i, name := range names {
		quoted[i] = postgres.QuoteIdentifier(name)
	}
	return strings.Join(quoted, ", ")
}
