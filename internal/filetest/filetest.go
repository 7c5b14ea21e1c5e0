// Package filetest reads feedback.json in tests, quickly under the race detector too, which slows code that looks at every
// byte by a factor of ten or more.
package filetest

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"
)

// Rows returns the rows of a file as [Compact] returns them. The error is not nil if the file is not complete and valid.
func Rows(file []byte) ([]string, error) {
	lines, err := Lines(file)
	if err != nil {
		return nil, err
	}
	rows := make([]string, len(lines))
	for i, line := range lines {
		rows[i] = Compact(string(line))
	}
	return rows, nil
}

// valid contains the hashes of lines that are valid JSON. It saves time because most lines of a file were in its previous
// version.
var (
	valid sync.Map
	seed  = maphash.MakeSeed()
)

// Lines returns the lines of a file that contain its rows, without the commas. The error is not nil if the file is not
// complete and valid.
func Lines(file []byte) ([][]byte, error) {
	if string(file) == "[]\n" {
		return nil, nil
	}
	body, opened := bytes.CutPrefix(file, []byte("[\n"))
	body, closed := bytes.CutSuffix(body, []byte("\n]\n"))
	if !opened || !closed {
		return nil, fmt.Errorf("the file is not complete: %d bytes", len(file))
	}
	lines := bytes.Split(body, []byte(",\n"))
	for i, line := range lines {
		sum := maphash.Bytes(seed, line)
		if _, ok := valid.Load(sum); ok {
			continue
		}
		if err := checkObject(line); err != nil {
			return nil, fmt.Errorf("row %d of %d is not valid: %w", i, len(lines), err)
		}
		valid.Store(sum, nil)
	}
	return lines, nil
}

// checkObject returns an error unless the text is one JSON object. Columns of type json may repeat a name.
func checkObject(text jsontext.Value) error {
	if text.Kind() != jsontext.KindBeginObject {
		return errors.New("no object")
	}
	if !text.IsValid(jsontext.AllowDuplicateNames(true)) {
		return errors.New("no JSON")
	}
	return nil
}

// Compact returns JSON without white space outside strings. It keeps white space between two values, so that text that is not
// JSON stays that way.
//
//go:norace
func Compact(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	inString, escaped, space := false, false, false
	last := byte(',')
	for i := range len(s) {
		c := s[i]
		switch {
		case inString:
			inString = escaped || c != '"'
			escaped = !escaped && c == '\\'
		case c == ' ' || c == '\t' || c == '\n' || c == '\r':
			space = true
			continue
		default:
			inString = c == '"'
			if space && !isPunctuation(last) && !isPunctuation(c) {
				b.WriteByte(' ')
			}
			space = false
		}
		b.WriteByte(c)
		last = c
	}
	return b.String()
}

//go:norace
func isPunctuation(c byte) bool {
	return c == ',' || c == ':' || c == '{' || c == '}' || c == '[' || c == ']'
}
