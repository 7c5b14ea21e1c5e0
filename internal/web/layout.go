package web

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"

	"capture/snapshot/rowjson"
)

// role is what a column means to a reader of votes. The page shows a column without one by its type.
type role string

const (
	question   role = "question"
	answerRole role = "answer"
	comment    role = "comment"
	timeRole   role = "time"
	tagsRole   role = "tags"
	citations  role = "citations"
)

// layout is how the rows of one shape are read: which columns say what.
type layout struct {
	shape *rowjson.Shape
	enc   *rowjson.Encoder // for its Field and AppendKey, which change nothing in it
	roles []role           // one a column
	texts []int            // columns that a search looks into
	time  int              // column, or -1
	tags  int              // column, or -1
}

// hints are the words in a column's name that give it its role, the most telling first.
var hints = []struct {
	role  role
	words []string
}{
	{question, []string{"question", "query", "prompt", "input", "request", "title", "subject"}},
	{answerRole, []string{"answer", "response", "reply", "completion", "output", "body", "content"}},
	{comment, []string{"comment", "remark", "note", "feedback", "review"}},
}

// layoutOf finds the roles: the time and the tags by the given names, else by type; the texts by their names.
func layoutOf(shape *rowjson.Shape, timeColumn, tagsColumn string) (*layout, error) {
	enc, err := rowjson.NewEncoder(shape, false)
	if err != nil {
		return nil, err
	}
	l := &layout{shape: shape, enc: enc, roles: make([]role, len(shape.Columns)), time: -1, tags: -1}
	l.time = find(shape, timeColumn, func(t *rowjson.Type) bool {
		return t.Kind == rowjson.Timestamp || t.Kind == rowjson.TimestampTZ
	})
	l.tags = find(shape, tagsColumn, func(t *rowjson.Type) bool {
		return t.Kind == rowjson.Array && t.Elem.Kind == rowjson.Text
	})
	if l.time >= 0 {
		l.roles[l.time] = timeRole
	}
	if l.tags >= 0 {
		l.roles[l.tags] = tagsRole
	}
	var words []int // text columns that hold words: no enum, no uuid
	for i := range shape.Columns {
		c := &shape.Columns[i]
		switch c.Type.Kind {
		case rowjson.Text:
			l.texts = append(l.texts, i)
			if l.roles[i] == "" && isText(c.TypeName) {
				words = append(words, i)
			}
		case rowjson.JSON:
			name := strings.ToLower(c.Name)
			if l.roles[i] == "" && (strings.Contains(name, "citation") || strings.Contains(name, "source") || strings.Contains(name, "reference")) {
				l.roles[i] = citations
			}
		}
	}
	l.nameTexts(words)
	return l, nil
}

func find(shape *rowjson.Shape, name string, fits func(*rowjson.Type) bool) int {
	for i := range shape.Columns {
		if c := &shape.Columns[i]; name != "" && c.Name == name || name == "" && fits(&c.Type) {
			return i
		}
	}
	return -1
}

func isText(typeName string) bool {
	switch base, _, _ := strings.Cut(typeName, "("); base {
	case "text", "character varying", "character", "citext":
		return true
	}
	return false
}

// nameTexts gives the roles of texts, each to one column. Where no name tells, the first text stands for the question:
// it is what a list of rows shows.
func (l *layout) nameTexts(columns []int) {
	for _, h := range hints {
	words:
		for _, word := range h.words {
			for _, i := range columns {
				if l.roles[i] == "" && strings.Contains(strings.ToLower(l.shape.Columns[i].Name), word) {
					l.roles[i] = h.role
					break words
				}
			}
		}
	}
	for _, i := range columns {
		if l.roles[i] == question {
			return
		}
	}
	for _, i := range columns {
		if l.roles[i] == "" {
			l.roles[i] = question
			return
		}
	}
}

// field is the JSON of one column, nil where the line doesn't have it.
func (l *layout) field(line []byte, column int) []byte {
	value, _ := l.enc.Field(line, column)
	return value
}

// when is the row's time as it stands in the line, "" for none.
func (l *layout) when(line []byte) []byte {
	if l.time < 0 {
		return nil
	}
	v := l.field(line, l.time)
	if len(v) < 2 || v[0] != '"' {
		return nil
	}
	return v[1 : len(v)-1]
}

// eachTag calls f with each tag of the row, until it returns false. The bytes are good for the call only.
func (l *layout) eachTag(line []byte, f func(tag []byte) bool) {
	if l.tags < 0 {
		return
	}
	v := bytes.TrimSpace(l.field(line, l.tags))
	if len(v) > 0 && v[0] == '"' {
		f(unquote(v))
		return
	}
	// An array, of arrays where the column has several dimensions; a tag in any of them counts.
	for i := 0; i < len(v); i++ {
		if v[i] != '"' {
			continue
		}
		end := i + 1
		for end < len(v) && v[end] != '"' {
			if v[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(v) || !f(unquote(v[i:end+1])) {
			return
		}
		i = end
	}
}

// unquote is the text of a JSON string.
func unquote(v []byte) []byte {
	if bytes.IndexByte(v, '\\') < 0 {
		return v[1 : len(v)-1]
	}
	var s string
	if json.Unmarshal(v, &s) != nil {
		return nil
	}
	return []byte(s)
}

// keyText is the key as the API gives it and takes it: as the log has it, but never something that would change its
// meaning in a URL's path.
func keyText(shape *rowjson.Shape, key rowjson.Key) string {
	text := shape.KeyString(key)
	if text == "." || text == ".." || text == "/" {
		return strconv.Quote(text)
	}
	return text
}

// keyOf reads what keyText writes. A single column's value may stand without its quotes.
func (l *layout) keyOf(text string) (rowjson.Key, bool) {
	parts := []string{text}
	if len(l.shape.Key) > 1 {
		var ok bool
		if parts, ok = splitKey(text); !ok {
			return nil, false
		}
	} else if unquoted, err := strconv.Unquote(text); err == nil && strings.HasPrefix(text, `"`) {
		parts[0] = unquoted
	}
	if len(parts) != len(l.shape.Key) {
		return nil, false
	}
	values := make([][]byte, len(l.shape.Columns))
	for i, column := range l.shape.Key {
		values[column] = []byte(parts[i])
	}
	key, err := l.enc.AppendKey(nil, values)
	return key, err == nil
}

// splitKey takes "(1,"a b")" apart.
func splitKey(text string) (parts []string, ok bool) {
	text, opens := strings.CutPrefix(text, "(")
	text, closes := strings.CutSuffix(text, ")")
	if !opens || !closes {
		return nil, false
	}
	for {
		if strings.HasPrefix(text, `"`) {
			quoted, err := strconv.QuotedPrefix(text)
			if err != nil {
				return nil, false
			}
			part, err := strconv.Unquote(quoted)
			if err != nil {
				return nil, false
			}
			parts, text = append(parts, part), text[len(quoted):]
		} else {
			end := strings.IndexByte(text, ',')
			if end < 0 {
				end = len(text)
			}
			parts, text = append(parts, text[:end]), text[end:]
		}
		if text == "" {
			return parts, true
		}
		if text[0] != ',' {
			return nil, false
		}
		text = text[1:]
	}
}
