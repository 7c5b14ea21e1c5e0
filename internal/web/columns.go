package web

import (
	"bytes"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"capture/snapshot/rowjson"
)

// role is what a column means to a reader of votes. The page shows a column without a role by its type.
type role string

const (
	roleQuestion  role = "question"
	roleAnswer    role = "answer"
	roleComment   role = "comment"
	roleTime      role = "time"
	roleTags      role = "tags"
	roleCitations role = "citations"
)

// nameHints are the words in the name of a text column that give it a role, the most telling word first.
var nameHints = []struct {
	role  role
	words []string
}{
	{roleQuestion, []string{"question", "query", "prompt", "input", "request", "title", "subject"}},
	{roleAnswer, []string{"answer", "response", "reply", "completion", "output", "body", "content"}},
	{roleComment, []string{"comment", "remark", "note", "feedback", "review"}},
}

// citationHints are the words in the name of a JSON column that holds citations.
var citationHints = []string{"citation", "source", "reference"}

// columnRoles knows the roles of one shape's columns and reads their values from rows.
type columnRoles struct {
	shape *rowjson.Shape
	enc   *rowjson.Encoder // used for Field and AppendKey only, which are safe for concurrent use
	roles []role           // role of each column, "" without one
	texts []int            // columns that a search reads
	time  int              // column of the vote's time, -1 without one
	tags  int              // column of the vote's tags, -1 without one
}

// newColumnRoles assigns the roles: time and tags by the names given, or by type if a name is ""; texts by their names.
func newColumnRoles(shape *rowjson.Shape, timeColumn, tagsColumn string) (*columnRoles, error) {
	enc, err := rowjson.NewEncoder(shape, false)
	if err != nil {
		return nil, err
	}
	c := &columnRoles{shape: shape, enc: enc, roles: make([]role, len(shape.Columns))}
	c.time = findColumn(shape, timeColumn, func(t *rowjson.Type) bool {
		return t.Kind == rowjson.Timestamp || t.Kind == rowjson.TimestampTZ
	})
	c.tags = findColumn(shape, tagsColumn, func(t *rowjson.Type) bool {
		return t.Kind == rowjson.Array && t.Elem.Kind == rowjson.Text
	})
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
	return c, nil
}

// findColumn returns the column with the name, or, for the name "", the first one whose type fits; -1 if there is none.
func findColumn(shape *rowjson.Shape, name string, fits func(*rowjson.Type) bool) int {
	return slices.IndexFunc(shape.Columns, func(column rowjson.Column) bool {
		if name != "" {
			return column.Name == name
		}
		return fits(&column.Type)
	})
}

// isProse reports whether a type of kind Text is for prose. Enums and uuids, for example, are not.
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

// assignTextRoles gives each text role to one column. If no name hints at the question, the first column without a role
// takes its place: it is what the list of votes shows.
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

// findByHint returns the first column without a role whose name has the earliest of the words, or -1.
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

// value returns the JSON of one column in a row's line, or nil if the line lacks it.
func (c *columnRoles) value(line []byte, column int) []byte {
	value, _ := c.enc.Field(line, column)
	return value
}

// timeText returns the row's time as the line has it, without quotes, or nil without one.
func (c *columnRoles) timeText(line []byte) []byte {
	if c.time < 0 {
		return nil
	}
	v := c.value(line, c.time)
	if len(v) < 2 || v[0] != '"' {
		return nil
	}
	return v[1 : len(v)-1]
}

// eachTag calls yield with each tag of the row until it returns false. The tag's bytes are valid during the call only.
//
// A count and a search call it for every row of the table, so it finds the strings itself: a jsontext.Decoder takes 20 %
// more for a row if it is used again, 45 % more if not.
func (c *columnRoles) eachTag(line []byte, yield func(tag []byte) bool) {
	if c.tags < 0 {
		return
	}
	// A text, or an array of texts. An array of several dimensions has the tags in inner arrays.
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

// unquoteJSON returns the text of a JSON string. The text may share the string's memory.
func unquoteJSON(v []byte) []byte {
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1]
	}
	text, _ := jsontext.AppendUnquote(nil, v) // an error is about characters, which are replaced by U+FFFD
	return text
}
