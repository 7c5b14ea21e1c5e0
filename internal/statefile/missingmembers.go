package statefile

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"

	"capture/internal/foreign"
	"capture/snapshot/rowjson"
	"capture/store/manifest"
)

// nullColumn is a column that gets the value null in the rows that lack it.
type nullColumn struct {
	name   string
	member []byte // member with the value null, as JSON
}

// AddNulls makes [Reader.Next] add the given columns, with the value null, to each row that lacks them. Spark and serde, for
// example, leave out members that are null. lastRow must be nil or the row that the latest call of [Reader.Next] returned.
// AddNulls completes this row, too.
func (r *Reader) AddNulls(columns []string, lastRow *Row) {
	r.nullColumns = nil
	for _, name := range columns {
		quoted, _ := json.Marshal(name) // never fails for a string
		r.nullColumns = append(r.nullColumns, nullColumn{name, append(quoted, ":null"...)})
	}
	if lastRow != nil {
		r.addNulls()
		lastRow.Text, lastRow.Members = r.text, r.members
	}
}

// NullableColumns returns the columns of a table that a program may have left out of a row because they are NULL. If the file
// has a manifest, NullableColumns returns only columns that the manifest lists. manifest may be nil.
func NullableColumns(shape *rowjson.Shape, manifest *manifest.Manifest) []string {
	var names []string
	for i := range shape.Columns {
		c := &shape.Columns[i]
		known := manifest == nil || slices.ContainsFunc(manifest.Columns, func(m rowjson.Column) bool { return m.Name == c.Name })
		if known && !c.NotNull && c.Generated == "" {
			names = append(names, c.Name)
		}
	}
	return names
}

// addNulls adds the columns that the current row lacks. If r.text becomes too long for its buffer, append copies it to a
// larger one. The values of the existing members then still refer to the old buffer, which stays as it is.
func (r *Reader) addNulls() {
	hint := 0
	for _, c := range r.nullColumns {
		if at := findIndex(r.members, c.name, hint); at >= 0 {
			hint = at + 1
			continue
		}
		text := r.text[:len(r.text)-1]
		if len(r.members) > 0 {
			text = append(text, ',')
		}
		text = append(text, c.member...)
		r.members = append(r.members, Member{[]byte(c.name), text[len(text)-len("null") : len(text) : len(text)]})
		r.text = append(text, '}')
	}
}

// findIndex returns the index of a member with the given name, or -1 if there is none. It tries the index hint first, and
// then all indexes in order.
func findIndex(members []Member, name string, hint int) int {
	if hint < len(members) && string(members[hint].Name) == name {
		return hint
	}
	for i, m := range members {
		if string(m.Name) == name {
			return i
		}
	}
	return -1
}

// DescribeNesting returns advice for a file whose first object is not a row of the table, but seems to contain the rows. The
// advice says where the rows are, and what to do. members are the members of that object. DescribeNesting returns
// "" if the members include the table's key, or if the object does not look as if it contained rows.
func DescribeNesting(shape *rowjson.Shape, members []Member) string {
	if hasKey(shape, members) {
		return ""
	}
	byColumn := len(members) > 0
	for _, m := range members {
		inner := bytes.TrimLeft(m.Value, "[ \t\r\n")
		if m.Value[0] == '[' && len(inner) > 0 && inner[0] == '{' {
			name := foreign.Text(string(m.Name))
			return fmt.Sprintf("its rows are in the member %q of an object: take them out first, as with jq: jq '.[%[1]q]' FILE > ROWS.json", name)
		}
		byColumn = byColumn && bytes.HasPrefix(bytes.ReplaceAll(m.Value[:min(len(m.Value), 20)], []byte(" "), nil), []byte(`{"0":`))
	}
	if byColumn {
		return `its values are ordered by column, as pandas writes them by default: write it with to_json(orient="records")`
	}
	return ""
}

// hasKey reports whether the members have a value for each column of the key. An object counts as a value only if the column's
// type has values that are objects in JSON.
func hasKey(shape *rowjson.Shape, members []Member) bool {
	for _, i := range shape.Key {
		c := &shape.Columns[i]
		value := FindMember(members, c.Name, i)
		if value == nil {
			return false
		}
		switch c.Type.Kind {
		case rowjson.JSON, rowjson.Composite, rowjson.Cast:
		default:
			if value[0] == '{' {
				return false
			}
		}
	}
	return true
}
