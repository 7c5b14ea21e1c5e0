package web

import (
	"bytes"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"capture/snapshot/rowjson"
)

// role is the meaning of a column for a reader of votes. The page shows a column without a role according to its type.
type role string

const (
	roleQuestion  role = "question"
	roleAnswer    role = "answer"
	roleComment   role = "comment"
	roleTime      role = "time"
	roleTags      role = "tags"
	roleCitations role = "citations"
)

// nameHints lists, for each text role, words in a column's name that suggest the role. Earlier words take precedence.
var nameHints = []struct {
	role  role
	words []string
}{
	{roleQuestion, []string{"question", "query", "prompt", "input", "request", "title", "subject"}},
	{roleAnswer, []string{"answer", "response", "reply", "completion", "output", "body", "content"}},
	{roleComment, []string{"comment", "remark", "note", "feedback", "review"}},
}

// citationHints are words in the name of a JSON column that suggest that the column holds citations.
var citationHints = []string{"citation", "source", "reference"}

// columnRoles holds the roles of one shape's columns, and reads the columns' values from rows.
type columnRoles struct {
	shape *rowjson.Shape
	enc   *rowjson.Encoder // used only for Field, LastField and AppendKey, which are safe for concurrent use
	roles []role           // role of each column; "" if the column has none
	texts []int            // indexes of the columns that a search reads
	time  int              // index of the column with the vote's time; -1 if there is none
	tags  int              // index of the column with the vote's tags; -1 if there is none

	question int // index of the column with the question; -1 if there is none
}

// newColumnRoles assigns roles to the columns of shape. timeColumn and tagsColumn name the columns for time and tags. If a name
// is "", the first column of a suitable type gets the role. Text columns get their roles by their names.
func newColumnRoles(shape *rowjson.Shape, timeColumn, tagsColumn string) (*columnRoles, error) {
	enc, err := rowjson.NewEncoder(shape, false)
	if err != nil {
		return nil, err
	}
	c := &columnRoles{shape: shape, enc: enc, roles: make([]role, len(shape.Columns))}
	c.time = findColumn(shape, timeColumn, func(t *rowjson.Type) bool {
		return t.Kind == rowjson.Timestamp || t.Kind == rowjson.TimestampTZ
	})
	if c.time >= 0 && !holdsTimes(&shape.Columns[c.time].Type) {
		c.time = -1 // columnChecker reports that the column is unsuitable
	}
	c.tags = findColumn(shape, tagsColumn, func(t *rowjson.Type) bool {
		return t.Kind == rowjson.Array && t.Elem.Kind == rowjson.Text
	})
	if c.tags >= 0 && !holdsTags(&shape.Columns[c.tags].Type) {
		c.tags = -1
	}
	if c.time >= 0 {
		c.roles[c.time] = roleTime
	}
	if c.tags >= 0 {
		c.roles[c.tags] = roleTags
	}
	var proseColumns []int
	for i := range shape.Columns {
		column := &shape.Columns[i]
		switch column.Type.Kind {
		case rowjson.Text:
			c.texts = append(c.texts, i)
			if c.roles[i] == "" && isProse(column.TypeName) {
				proseColumns = append(proseColumns, i)
			}
		case rowjson.JSON:
			if c.roles[i] == "" && containsAny(column.Name, citationHints) {
				c.roles[i] = roleCitations
			}
		}
	}
	c.assignTextRoles(proseColumns)
	c.question = slices.Index(c.roles, roleQuestion)
	return c, nil
}

// findColumn returns the index of the column with the given name. If name is "", it returns the index of the first column whose
// type fits. It returns -1 if there is no such column.
func findColumn(shape *rowjson.Shape, name string, fits func(*rowjson.Type) bool) int {
	return slices.IndexFunc(shape.Columns, func(column rowjson.Column) bool {
		if name != "" {
			return column.Name == name
		}
		return fits(&column.Type)
	})
}

// holdsTimes reports whether a column of the type can hold the time of a vote: a timestamp, a date, or a number that counts the
// time since 1970.
func holdsTimes(t *rowjson.Type) bool {
	return rowjson.IsTime(t) || t.Kind == rowjson.Number
}

// holdsTags reports whether a column of the type can hold the tags of a vote: a text, a JSON value, or an array of texts or
// JSON values.
func holdsTags(t *rowjson.Type) bool {
	for t.Kind == rowjson.Array {
		t = t.Elem
	}
	return t.Kind == rowjson.Text || t.Kind == rowjson.JSON
}

// isProse reports whether a type of kind Text is meant for prose. Enums and uuids, for example, are not.
func isProse(typeName string) bool {
	switch base, _, _ := strings.Cut(typeName, "("); base {
	case "text", "character varying", "character", "citext":
		return true
	}
	return false
}

func containsAny(name string, words []string) bool {
	name = strings.ToLower(name)
	return slices.ContainsFunc(words, func(word string) bool { return strings.Contains(name, word) })
}

// assignTextRoles gives each text role to at most one column. If no column's name suggests the question, the first column
// without a role becomes the question, because the list of votes needs a question to show.
func (c *columnRoles) assignTextRoles(proseColumns []int) {
	for _, hint := range nameHints {
		if i := c.findByHint(proseColumns, hint.words); i >= 0 {
			c.roles[i] = hint.role
		}
	}
	if slices.Contains(c.roles, roleQuestion) {
		return
	}
	for _, i := range proseColumns {
		if c.roles[i] == "" {
			c.roles[i] = roleQuestion
			return
		}
	}
}

// findByHint returns the first candidate column that has no role yet and whose name contains one of the words, or -1.
// Earlier words take precedence over earlier candidates.
func (c *columnRoles) findByHint(candidates []int, words []string) int {
	for _, word := range words {
		for _, i := range candidates {
			if c.roles[i] == "" && strings.Contains(strings.ToLower(c.shape.Columns[i].Name), word) {
				return i
			}
		}
	}
	return -1
}

// value returns the JSON of the value that a row's line has in the column with the given index. It returns nil if the line
// lacks the column.
func (c *columnRoles) value(line []byte, column int) []byte {
	value, _ := c.enc.Field(line, column)
	return value
}

// timeJSON returns the JSON of the row's time. It must be called only if there is a time column. It must be fast, because
// counts, searches and sorting by time call it for every row. The time is often the last column, which LastField finds
// faster than Field.
func (c *columnRoles) timeJSON(line []byte) []byte {
	if last := len(c.shape.Columns) - 1; c.time == last && last > 0 && c.shape.Columns[last].Type.IsFlat() {
		value, _ := c.enc.LastField(line)
		return value
	}
	return c.value(line, c.time)
}

// timeLayout is the form of the times in rows: without quotes, and without the offset of a timestamp with time zone. In this form,
// the byte order is the order of the times.
const timeLayout = "2006-01-02T15:04:05.999999"

// timeText returns the row's time as the line contains it, but without quotes, or nil if the row has no time. If the time is a
// number, timeText converts it to timeLayout.
func (c *columnRoles) timeText(line []byte) []byte {
	if c.time < 0 {
		return nil
	}
	v := c.timeJSON(line)
	switch {
	case len(v) == 0 || v[0] == 'n': // the value is null
		return nil
	case v[0] == '"':
		return v[1 : len(v)-1]
	}
	at, _, err := rowjson.ParseEpoch(v)
	if err != nil || at.Year() < 1 || at.Year() > 9999 {
		return nil
	}
	return at.AppendFormat(nil, timeLayout)
}

// eachTag calls yield with each tag of the row until yield returns false. The tag's bytes are valid only during the call.
//
// A count and a search call eachTag for every row of the table, so eachTag finds the strings without a decoder. With a
// jsontext.Decoder, a row would take 20 % longer, or 45 % longer if the decoder were not reused.
func (c *columnRoles) eachTag(line []byte, yield func(tag []byte) bool) {
	if c.tags < 0 {
		return
	}
	// The value is a text or an array of texts. In an array of several dimensions, the tags are in inner arrays.
	rest := c.value(line, c.tags)
	for {
		start := bytes.IndexByte(rest, '"')
		if start < 0 {
			return
		}
		rest = rest[start:]
		end := 1
		for end < len(rest) && rest[end] != '"' {
			if rest[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(rest) || !yield(unquoteJSON(rest[:end+1])) {
			return
		}
		rest = rest[end+1:]
	}
}

// unquoteJSON returns the text of a JSON string. The result may be a subslice of v.
func unquoteJSON(v []byte) []byte {
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1]
	}
	text, _ := jsontext.AppendUnquote(nil, v) // an error means invalid characters, which are replaced by U+FFFD
	return text
}
