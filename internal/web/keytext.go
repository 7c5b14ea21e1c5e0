package web

import (
	"strconv"
	"strings"

	"capture/snapshot/rowjson"
)

// keyText returns a key as the API prints it: 42, or (7,"a b") if the key has several columns. It returns the same as
// Shape.KeyString, but also quotes texts that would change the meaning of a URL's path.
func keyText(shape *rowjson.Shape, key rowjson.Key) string {
	text := shape.KeyString(key)
	if text == "." || text == ".." || text == "/" {
		return strconv.Quote(text)
	}
	return text
}

// parseKey is the inverse of keyText. If the key has a single column, its value needs no quotes.
func (c *columnRoles) parseKey(text string) (rowjson.Key, bool) {
	texts, ok := splitKey(text, len(c.shape.Key))
	if !ok {
		return nil, false
	}
	values := make([][]byte, len(c.shape.Columns))
	for i, column := range c.shape.Key {
		values[column] = []byte(texts[i])
	}
	key, err := c.enc.AppendKey(nil, values)
	return key, err == nil
}

// splitKey splits the text of a key into the texts of its columns. It returns false if text is not a key of the given number of
// columns.
func splitKey(text string, columns int) ([]string, bool) {
	if columns == 1 {
		if unquoted, err := strconv.Unquote(text); err == nil && text[0] == '"' {
			text = unquoted
		}
		return []string{text}, true
	}
	text, opened := strings.CutPrefix(text, "(")
	text, closed := strings.CutSuffix(text, ")")
	if !opened || !closed {
		return nil, false
	}
	texts := make([]string, 0, columns)
	for rest := text; ; rest = rest[1:] {
		value, length, ok := cutKeyValue(rest)
		if !ok {
			return nil, false
		}
		texts = append(texts, value)
		if rest = rest[length:]; rest == "" {
			return texts, len(texts) == columns
		}
		if rest[0] != ',' {
			return nil, false
		}
	}
}

// cutKeyValue returns the first value of a list, and the length of its text in the list. It returns false if the quotes of
// the value are malformed.
func cutKeyValue(list string) (value string, length int, ok bool) {
	if !strings.HasPrefix(list, `"`) {
		value, _, _ = strings.Cut(list, ",")
		return value, len(value), true
	}
	quoted, err := strconv.QuotedPrefix(list)
	if err != nil {
		return "", 0, false
	}
	value, err = strconv.Unquote(quoted)
	return value, len(quoted), err == nil
}
