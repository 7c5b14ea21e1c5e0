// Package filetest reads feedback.json in tests. It is fast even under the race detector, which makes code that looks at
// every byte at least ten times as slow. [OpenLeased] lets a test open a file on which another program has a lease.
package filetest

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// Rows returns the rows of a file in the form that [Compact] returns, or an error if the file is incomplete or invalid.
func Rows(file []byte) ([]string, error) {
	lines, err := split(file)
	if err != nil || len(lines) == 0 {
		return nil, err
	}
	rows := make([]string, len(lines))
	for i, line := range lines {
		rows[i] = Compact(string(line)) // if the compact form is valid JSON, the line is valid, too
		if err := check(rows[i]); err != nil {
			return nil, fmt.Errorf("row %d of %d is not valid: %w", i, len(lines), err)
		}
	}
	return rows, nil
}

// Lines returns the lines with the rows of a file, without the commas. It returns an error if the file is incomplete or
// invalid.
func Lines(file []byte) ([][]byte, error) {
	lines, err := split(file)
	for i, line := range lines {
		if err := check(string(line)); err != nil {
			return nil, fmt.Errorf("row %d of %d is not valid: %w", i, len(lines), err)
		}
	}
	return lines, err
}

// split returns the lines with the rows of a file, or an error if the file is incomplete.
func split(file []byte) ([][]byte, error) {
	if string(file) == "[]\n" {
		return nil, nil
	}
	body, opened := bytes.CutPrefix(file, []byte("[\n"))
	body, closed := bytes.CutSuffix(body, []byte("\n]\n"))
	if !opened || !closed {
		return nil, fmt.Errorf("the file is not complete: %d bytes", len(file))
	}
	return bytes.Split(body, []byte(",\n")), nil
}

// valid contains the hashes of texts that are known to be one JSON object each. The hashes save time, because most lines of
// a file were also in the previous version of the file.
var (
	valid sync.Map
	seed  = maphash.MakeSeed()
)

// AddValid adds rows to the valid texts, without a check. The rows must have the form that [Compact] returns, and Postgres must
// have printed them as JSON. AddValid leaves out rows with invalid UTF-8. It also leaves out rows with \u escapes, because such
// an escape may stand for half of a surrogate pair.
func AddValid(rows []string) {
	for _, row := range rows {
		if utf8.ValidString(row) && !strings.Contains(row, `\u`) {
			valid.Store(maphash.String(seed, row), nil)
		}
	}
}

// check returns an error unless the text is one JSON object.
func check(text string) error {
	sum := maphash.String(seed, text)
	if _, ok := valid.Load(sum); ok {
		return nil
	}
	if err := checkObject(jsontext.Value(text)); err != nil {
		return err
	}
	valid.Store(sum, nil)
	return nil
}

// checkObject returns an error unless the text is one JSON object. A repeated name is no error, because Postgres' type json
// allows it.
func checkObject(text jsontext.Value) error {
	if text.Kind() != jsontext.KindBeginObject {
		return errors.New("no object")
	}
	if !text.IsValid(jsontext.AllowDuplicateNames(true)) {
		return errors.New("no JSON")
	}
	return nil
}

// Compact returns JSON without white space outside strings. It keeps white space between two values: otherwise, invalid text
// such as "1 2" would become valid. It copies each string as a whole, because most of a row is in its strings.
//
//go:norace
func Compact(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	space := false
	last := byte(',')
	for i := 0; i < len(s); {
		c, end := s[i], i+1
		if c == ' ' || c == '\t' || c == '\n' || c == '\r' {
			space = true
			i = end
			continue
		}
		if space && !isPunctuation(last) && !isPunctuation(c) {
			b.WriteByte(' ')
		}
		space = false
		if c == '"' {
			end = i + stringLength(s[i:])
			b.WriteString(s[i:end])
		} else {
			b.WriteByte(c)
		}
		last = s[end-1]
		i = end
	}
	return b.String()
}

// stringLength returns the length of the JSON string with which s begins. If the string does not end, it returns the length of s.
//
//go:norace
func stringLength(s string) int {
	for end := 1; ; {
		n := strings.IndexByte(s[end:], '"')
		if n < 0 {
			return len(s)
		}
		quote := end + n
		first := quote // index of the first of the backslashes before the quote
		for s[first-1] == '\\' {
			first--
		}
		end = quote + 1
		if (quote-first)%2 == 0 {
			return end
		}
	}
}

//go:norace
func isPunctuation(c byte) bool {
	return c == ',' || c == ':' || c == '{' || c == '}' || c == '[' || c == ']'
}
