package rowjson

import (
	"bytes"
	"errors"
)

// lineScanner reads the members of a line in order, each at most once.
type lineScanner struct {
	line []byte
	at   int // offset of the text that opens the next column, such as ,"name":
	next int // index of the next column
}

// seekColumn returns the value of the column at index i, which must not be less than s.next. It returns false if the line
// lacks this column.
func (s *lineScanner) seekColumn(columns []column, i int) ([]byte, bool) {
	for s.next <= i {
		rest := s.line[s.at:]
		opening := columns[s.next].opening
		if !bytes.HasPrefix(rest, opening) {
			return nil, false
		}
		value := rest[len(opening):]
		n := valueLength(value)
		if n <= 0 {
			return nil, false
		}
		s.at += len(opening) + n
		if s.next++; s.next > i {
			return value[:n], true
		}
	}
	return nil, false
}

// valueLength returns the length of the JSON value that text starts with. The value must be followed by a comma, a closing
// bracket or a closing brace; otherwise, valueLength returns -1.
func valueLength(text []byte) int {
	depth := 0
	for i := 0; i < len(text); i++ {
		switch text[i] {
		case '"':
			n := stringLength(text[i:])
			if n < 0 {
				return -1
			}
			i += n - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth == 0 {
				return i
			}
			depth--
		case ',':
			if depth == 0 {
				return i
			}
		}
	}
	return -1
}

// stringLength returns the length of the JSON string that text starts with, including its quotes, or -1 if the string does not
// end.
func stringLength(text []byte) int {
	for i := 1; ; i++ {
		i += cleanPrefix(text[min(i, len(text)):])
		switch {
		case i >= len(text):
			return -1
		case text[i] == '"':
			return i + 1
		case text[i] == '\\':
			i++
		}
	}
}

// space is JSON's white space.
const space = " \t\n\r"

var errJSON = errors.New("not valid JSON")

// splitArray returns the elements of array, which must be a valid JSON array.
func splitArray(array []byte) (elems [][]byte, err error) {
	for rest := array[1:]; ; {
		n := valueLength(rest)
		if n < 0 {
			return nil, errJSON
		}
		if elem := bytes.Trim(rest[:n], space); len(elem) > 0 {
			elems = append(elems, elem)
		}
		if rest[n] != ',' {
			return elems, nil
		}
		rest = rest[n+1:]
	}
}

// objectMember is a member of a JSON object.
type objectMember struct {
	name  []byte // unescaped
	value []byte
}

// splitObject returns the members of object, which must be a valid JSON object.
func splitObject(object []byte) (members []objectMember, err error) {
	for rest := object[1:]; ; {
		rest = bytes.TrimLeft(rest, space)
		if len(rest) == 0 || rest[0] != '"' {
			return members, nil // {}
		}
		n := stringLength(rest)
		if n < 0 {
			return nil, errJSON
		}
		name := rest[1 : n-1]
		if bytes.IndexByte(name, '\\') >= 0 {
			if name, err = AppendUnescaped(nil, rest[:n]); err != nil {
				return nil, err
			}
		}
		_, rest, _ = bytes.Cut(rest[n:], []byte{':'})
		if n = valueLength(rest); n < 0 {
			return nil, errJSON
		}
		members = append(members, objectMember{name, bytes.Trim(rest[:n], space)})
		if rest[n] != ',' {
			return members, nil
		}
		rest = rest[n+1:]
	}
}
