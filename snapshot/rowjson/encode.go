package rowjson

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// Unchanged is a value for [Encoder.AppendRow] that stands for a column that the update did not change. For a TOASTed value
// that an update does not touch, pgoutput sends the byte 'u' instead of the value (Postgres documentation, "Logical Replication
// Message Formats", TupleData). The Encoder recognizes Unchanged by its address, not by its bytes.
var Unchanged = []byte("unchanged")

func isUnchanged(value []byte) bool { return len(value) > 0 && &value[0] == &Unchanged[0] }

// Encoder encodes rows of one shape as JSON lines and keys. Each value is given as the text that the type's output function
// prints with DateStyle ISO, IntervalStyle postgres, TimeZone UTC and bytea_output hex. The line is what row_to_json writes.
//
// An Encoder belongs to one goroutine. Once its buffers have grown, it does not allocate, except for large rows.
type Encoder struct {
	// Server asks Postgres to encode a value of a type that the Encoder cannot encode ([Type.NeedsServer]). It returns the
	// result of to_json for the value with the given text form. column is the index of the value's column. If Server is nil,
	// such a value is an error.
	Server func(column int, text []byte) ([]byte, error)

	// MaxLine is the maximum length of a line in bytes; 0 means no limit. A row with a longer line causes a [*TooLargeError].
	MaxLine int

	columns  []column
	key      []keyColumn
	scratch  []byte // buffer, used as a stack: array elements and composite fields whose escapes have been removed
	end      int    // maximum length of dst while the current line is appended
	replaced bool   // whether an invalid byte was replaced; see Replaced
}

// NewEncoder returns an Encoder for the rows of s. lossy must be set if the database's encoding is SQL_ASCII, which does not
// guarantee valid UTF-8. With lossy, invalid bytes become U+FFFD in the line, and [Encoder.Replaced] reports true.
func NewEncoder(s *Shape, lossy bool) (*Encoder, error) {
	e := &Encoder{columns: make([]column, len(s.Columns)), end: math.MaxInt}
	for i := range s.Columns {
		c := &s.Columns[i]
		n, err := compileType(&c.Type, 0)
		if err != nil {
			return nil, fmt.Errorf("prepare column %q (%s): %w", c.Name, c.TypeName, err)
		}
		e.columns[i] = column{
			member:      member{opening: memberOpening(i, c.Name), node: n},
			needsServer: c.Type.NeedsServer(),
			checkUTF8:   lossy || c.Type.hasOID(charOID),
			label:       fmt.Sprintf("%q (%s)", c.Name, c.TypeName),
		}
	}
	if len(s.Key) == 0 {
		return nil, fmt.Errorf("prepare table %q: it has no key", s.Table)
	}
	for _, i := range s.Key {
		if i < 0 || i >= len(s.Columns) {
			return nil, fmt.Errorf("prepare table %q: its key refers to column %d of %d", s.Table, i, len(s.Columns))
		}
		e.key = append(e.key, keyColumn{index: i, form: keyFormOf(&s.Columns[i].Type)})
	}
	return e, nil
}

// Replaced reports whether the Encoder has replaced any invalid byte by U+FFFD so far.
func (e *Encoder) Replaced() bool { return e.replaced }

// AppendRow appends a row to dst as one line: a JSON object without a newline. values has the text form of each column in the
// order of the shape. A nil value is NULL. For the value [Unchanged], AppendRow copies the column from old, the row's previous
// line. On an error AppendRow returns dst unchanged. The error names the column and its type, never the value.
func (e *Encoder) AppendRow(dst []byte, values [][]byte, old []byte) ([]byte, error) {
	return e.appendRow(dst, values, old, false)
}

// AppendCopiedRow is like [Encoder.AppendRow], for a row of a table copy. If a column's type needs the server
// ([Type.NeedsServer]), its value is JSON already, because the query of the copy selects to_json of the column.
func (e *Encoder) AppendCopiedRow(dst []byte, values [][]byte) ([]byte, error) {
	return e.appendRow(dst, values, nil, true)
}

func (e *Encoder) appendRow(dst []byte, values [][]byte, old []byte, copied bool) ([]byte, error) {
	start := len(dst)
	if len(values) != len(e.columns) {
		return dst, fmt.Errorf("encode row: %d values for %d columns", len(values), len(e.columns))
	}
	dst, err := e.reserveLine(dst, values, old)
	if err != nil {
		return dst, err
	}
	previous := lineScanner{line: old}
	for i, text := range values {
		c := &e.columns[i]
		dst = append(dst, c.opening...)
		switch {
		case text == nil:
			dst = append(dst, "null"...)
		case isUnchanged(text):
			value, ok := previous.seekColumn(e.columns, i)
			if !ok {
				return dst[:start], fmt.Errorf("encode column %s: the value is unchanged, but the row's previous line lacks it", c.label)
			}
			dst = append(dst, value...)
		default:
			dst, err = e.appendColumn(dst, i, text, copied)
		}
		if len(dst) > e.end {
			err = errTooLarge
		}
		if err == errTooLarge {
			return dst[:start], e.tooLarge(values, old, i)
		}
		if err != nil {
			return dst[:start], fmt.Errorf("encode column %s: %w", c.label, err)
		}
	}
	if cap(e.scratch) > largeRow {
		e.scratch = nil
	}
	if len(values) == 0 {
		dst = append(dst, '{')
	}
	// A value of type json may end with white space. Readers of a file take spaces before the closing brace for padding
	// (package placement), and remove them. appendRow also removes these spaces, so that the line equals the row that a
	// reader gets.
	return append(bytes.TrimRight(dst, " "), '}'), nil
}

// appendColumn appends the value of the column at index i. text is the value's text form, with one exception: in a copied row,
// a value of a type that only the server encodes comes as JSON already (see AppendCopiedRow). copied is set for a copied row.
func (e *Encoder) appendColumn(dst []byte, i int, text []byte, copied bool) ([]byte, error) {
	c := &e.columns[i]
	n := &c.node
	if c.needsServer {
		if !copied {
			if e.Server == nil {
				return dst, errors.New("only the server can write this type, and there is no connection for it")
			}
			var err error
			if text, err = e.Server(i, text); err != nil {
				return dst, err
			}
		}
		n = &rawJSON
	}
	if c.checkUTF8 && !utf8.Valid(text) {
		text = replaceInvalid(text)
		e.replaced = true
	}
	return e.appendValue(dst, n, text)
}

// rawJSON is the node of a value that is JSON already.
var rawJSON = node{kind: JSON}

// appendValue appends one value, which must not be NULL.
func (e *Encoder) appendValue(dst []byte, n *node, text []byte) ([]byte, error) {
	if len(dst) > e.end {
		return dst, errTooLarge
	}
	switch n.kind {
	case Text:
		return appendString(dst, text), nil
	case Number:
		if validNumber(text) {
			return append(dst, text...), nil
		}
		return appendString(dst, text), nil
	case JSON:
		if len(text) == 0 {
			return dst, errors.New("malformed json: empty")
		}
		return appendJSON(dst, text), nil
	case Bool:
		if len(text) == 1 {
			switch text[0] {
			case 't':
				return append(dst, "true"...), nil
			case 'f':
				return append(dst, "false"...), nil
			}
		}
		return dst, errors.New("malformed boolean: neither t nor f")
	case Timestamp:
		return appendTimestamp(dst, text, false)
	case TimestampTZ:
		return appendTimestamp(dst, text, true)
	case Array:
		return e.appendArray(dst, n, text)
	case Vector:
		return e.appendVector(dst, n, text)
	case Composite:
		return e.appendComposite(dst, n, text)
	}
	return dst, errors.New("a type that only the server can write")
}

// validNumber reports whether text is a valid JSON number. Every number that Postgres prints is valid, except NaN and the
// infinities.
func validNumber(text []byte) bool {
	i := 0
	digits := func() bool {
		start := i
		for i < len(text) && text[i]-'0' <= 9 {
			i++
		}
		return i > start
	}
	if i < len(text) && text[i] == '-' {
		i++
	}
	if i < len(text) && text[i] == '0' {
		i++
	} else if !digits() {
		return false
	}
	if i < len(text) && text[i] == '.' {
		i++
		if !digits() {
			return false
		}
	}
	if i < len(text) && (text[i] == 'e' || text[i] == 'E') {
		i++
		if i < len(text) && (text[i] == '+' || text[i] == '-') {
			i++
		}
		if !digits() {
			return false
		}
	}
	return i == len(text)
}

// appendTimestamp appends a timestamp such as "2025-06-17 16:58:00.5+00 BC" in ISO 8601, as row_to_json does: with a T between
// date and time, and with minutes in the offset. It does not change infinity and -infinity.
func appendTimestamp(dst, text []byte, zone bool) ([]byte, error) {
	dst = append(dst, '"')
	if s := string(text); s == "infinity" || s == "-infinity" {
		return append(append(dst, text...), '"'), nil
	}
	spaces, signAt := 0, 0 // signAt is the index of the sign of the UTC offset; 0 until it is found
	for i, c := range text {
		switch {
		case c-'0' <= 9, c == ':', c == '.', c == 'B', c == 'C':
		case (c == '-' || c == '+') && spaces == 0:
		case (c == '-' || c == '+') && zone && signAt == 0:
			signAt = i
		case c == ' ' && spaces < 2:
			if spaces++; spaces == 1 {
				c = 'T'
			} else if signAt > 0 && i-signAt == len("+00") {
				dst = append(dst, ":00"...)
			}
		default:
			return dst, errors.New("malformed timestamp")
		}
		dst = append(dst, c)
	}
	if spaces == 0 || zone && signAt == 0 {
		return dst, errors.New("malformed timestamp")
	}
	if signAt > 0 && len(text)-signAt == len("+00") {
		dst = append(dst, ":00"...)
	}
	return append(dst, '"'), nil
}

// Field returns the JSON of one column as a subslice of line. column is the column's index in the shape. Field returns false if
// line is not a line of this shape.
func (e *Encoder) Field(line []byte, column int) ([]byte, bool) {
	if column < 0 || column >= len(e.columns) {
		return nil, false
	}
	s := lineScanner{line: line}
	return s.seekColumn(e.columns, column)
}

// AppendFields appends the JSON of each column to fields, in the order of the shape, as subslices of line. It returns false if
// line is not a line of this shape.
func (e *Encoder) AppendFields(fields [][]byte, line []byte) ([][]byte, bool) {
	s := lineScanner{line: line}
	for i := range e.columns {
		value, ok := s.seekColumn(e.columns, i)
		if !ok {
			return fields, false
		}
		fields = append(fields, value)
	}
	return fields, string(line[s.at:]) == "}"
}

// LastField is like Field for the last column, but searches from the end of the line, so its speed does not depend on the
// other values. line must be a line of this shape, and the column's type must be flat: see IsFlat.
func (e *Encoder) LastField(line []byte) ([]byte, bool) {
	// The last match is the start of the last column. The opening (such as ,"name":) contains quotes, so it cannot occur
	// within the column's value: JSON escapes the quotes in a string.
	opening := e.columns[len(e.columns)-1].opening
	at := bytes.LastIndex(line, opening)
	if at < 0 {
		return nil, false
	}
	return line[at+len(opening) : len(line)-1], true
}
