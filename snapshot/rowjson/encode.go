package rowjson

import (
	"errors"
	"fmt"
	"unicode/utf8"
)

// Unchanged, as a value of [Encoder.AppendRow], says that an update left the column as it was (pgoutput sends a mark
// and no value for a TOAST column that an update did not touch). It is told from other values by identity, not by
// its bytes.
var Unchanged = []byte("unchanged")

func unchanged(value []byte) bool { return len(value) > 0 && &value[0] == &Unchanged[0] }

// Encoder turns rows of one shape into JSON lines and keys. It takes each value as the text that the type's output
// function prints with DateStyle ISO, IntervalStyle postgres, TimeZone UTC and bytea_output hex, and writes what
// row_to_json writes.
//
// An Encoder is for one goroutine. It allocates nothing per row once its buffers have grown.
type Encoder struct {
	// Server writes a value of a column whose type only Postgres can write ([Type.NeedsServer]): it returns to_json of
	// the value that text stands for. Without it such a value is an error.
	Server func(column int, text []byte) ([]byte, error)

	columns  []column
	key      []keyColumn
	scratch  []byte // a stack of unescaped elements and fields
	replaced bool
}

type column struct {
	member
	byServer bool
	unsure   bool   // the text may be no valid UTF-8
	about    string // for errors: the column's name and type
}

// member is a column of a row or a field of a composite.
type member struct {
	prefix []byte // {"name": of the first, ,"name": of any other
	node   node
}

// node is a Type made ready for encoding.
type node struct {
	kind   Kind
	delim  byte
	elem   *node
	fields []member
}

// maxNesting is how deep types may stand within types. Postgres allows no type that holds itself, so that real ones
// come nowhere near it.
const maxNesting = 100

// charOID is "char", one byte of any value: before PostgreSQL 16 it prints bytes that no encoding vouches for.
const charOID = 18

// NewEncoder makes an Encoder for the rows of s. lossy says that the database's encoding (SQL_ASCII) does not
// promise valid UTF-8: each byte that belongs to none becomes U+FFFD in the line, and [Encoder.Replaced] tells.
func NewEncoder(s *Shape, lossy bool) (*Encoder, error) {
	e := &Encoder{columns: make([]column, len(s.Columns))}
	for i := range s.Columns {
		c := &s.Columns[i]
		n, err := compile(&c.Type, 0)
		if err != nil {
			return nil, fmt.Errorf("prepare column %q (%s): %w", c.Name, c.TypeName, err)
		}
		e.columns[i] = column{
			member:   member{prefix: memberPrefix(i, c.Name), node: n},
			byServer: c.Type.NeedsServer(),
			unsure:   lossy || c.Type.contains(charOID),
			about:    fmt.Sprintf("%q (%s)", c.Name, c.TypeName),
		}
	}
	if len(s.Key) == 0 {
		return nil, fmt.Errorf("prepare table %q: it has no key", s.Table)
	}
	for _, i := range s.Key {
		if i < 0 || i >= len(s.Columns) {
			return nil, fmt.Errorf("prepare table %q: its key has column %d of %d", s.Table, i, len(s.Columns))
		}
		e.key = append(e.key, keyColumn{index: i, form: keyFormOf(&s.Columns[i].Type)})
	}
	return e, nil
}

func compile(t *Type, depth int) (node, error) {
	n := node{kind: t.Kind, delim: t.Delim}
	if depth > maxNesting {
		return n, errors.New("types nested too deep")
	}
	switch t.Kind {
	case Array, Vector:
		if t.Elem == nil {
			return n, errors.New("an array without a type of its elements")
		}
		if n.delim == 0 {
			n.delim = ','
		}
		elem, err := compile(t.Elem, depth+1)
		if err != nil {
			return n, err
		}
		n.elem = &elem
	case Composite:
		n.fields = make([]member, len(t.Fields))
		for i := range t.Fields {
			f := &t.Fields[i]
			field, err := compile(&f.Type, depth+1)
			if err != nil {
				return n, err
			}
			n.fields[i] = member{prefix: memberPrefix(i, f.Name), node: field}
		}
	}
	return n, nil
}

// memberPrefix is what stands before the value of an object's i-th member.
func memberPrefix(i int, name string) []byte {
	prefix := []byte{','}
	if i == 0 {
		prefix[0] = '{'
	}
	text := []byte(name)
	if !utf8.Valid(text) {
		text = repair(text)
	}
	return append(appendString(prefix, text), ':')
}

// contains says whether t is the type oid or has it anywhere in it.
func (t *Type) contains(oid uint32) bool {
	if t.OID == oid || t.Elem != nil && t.Elem.contains(oid) {
		return true
	}
	for i := range t.Fields {
		if t.Fields[i].Type.contains(oid) {
			return true
		}
	}
	return false
}

// Replaced says whether any byte has been replaced by U+FFFD so far.
func (e *Encoder) Replaced() bool { return e.replaced }

// AppendRow appends a row as one line, an object without a newline, to dst. values has the text form of each column
// in the order of the shape, nil for NULL, and [Unchanged] for what shall be taken from old, the row's line so far.
// On an error dst is returned as it came; the error names the column and its type, and never the value.
func (e *Encoder) AppendRow(dst []byte, values [][]byte, old []byte) ([]byte, error) {
	return e.appendRow(dst, values, old, false)
}

// AppendCopiedRow is [Encoder.AppendRow] for a row of the copy, where columns whose type is [Type.NeedsServer] are JSON
// already: the query has asked for to_json of them.
func (e *Encoder) AppendCopiedRow(dst []byte, values [][]byte) ([]byte, error) {
	return e.appendRow(dst, values, nil, true)
}

func (e *Encoder) appendRow(dst []byte, values [][]byte, old []byte, copied bool) ([]byte, error) {
	start := len(dst)
	if len(values) != len(e.columns) {
		return dst, fmt.Errorf("encode row: %d values for %d columns", len(values), len(e.columns))
	}
	previous := lineScanner{line: old}
	for i, text := range values {
		c := &e.columns[i]
		dst = append(dst, c.prefix...)
		var err error
		switch {
		case text == nil:
			dst = append(dst, "null"...)
		case unchanged(text):
			value, ok := previous.seek(e.columns, i)
			if !ok {
				return dst[:start], fmt.Errorf("encode column %s: its value is unchanged, but the row's previous "+
					"line does not have it", c.about)
			}
			dst = append(dst, value...)
		default:
			dst, err = e.appendColumn(dst, i, text, copied)
		}
		if err != nil {
			return dst[:start], fmt.Errorf("encode column %s: %w", c.about, err)
		}
	}
	if len(values) == 0 {
		dst = append(dst, '{')
	}
	return append(dst, '}'), nil
}

// appendColumn appends the value of the column at index i, given as its text form, or as JSON where the server has
// written it and copied says that this is a row of the copy.
func (e *Encoder) appendColumn(dst []byte, i int, text []byte, copied bool) ([]byte, error) {
	c := &e.columns[i]
	n := &c.node
	if c.byServer {
		if !copied {
			if e.Server == nil {
				return dst, errors.New("only the server can write this type, and it was not asked")
			}
			var err error
			if text, err = e.Server(i, text); err != nil {
				return dst, err
			}
		}
		n = &written
	}
	if c.unsure && !utf8.Valid(text) {
		text = repair(text)
		e.replaced = true
	}
	return e.appendValue(dst, n, text)
}

// written is a value that is JSON already.
var written = node{kind: JSON}

// appendValue appends one value that is not NULL.
func (e *Encoder) appendValue(dst []byte, n *node, text []byte) ([]byte, error) {
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

// validNumber says whether text is a number in JSON's grammar, as all numbers of Postgres are but NaN and the
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

// appendTimestamp appends "2025-06-17 16:58:00.5 BC" with a T between date and time, and where it has a zone "+00"
// with minutes. infinity and -infinity stay.
func appendTimestamp(dst, text []byte, zone bool) ([]byte, error) {
	dst = append(dst, '"')
	if s := string(text); s == "infinity" || s == "-infinity" {
		return append(append(dst, text...), '"'), nil
	}
	spaces, sign := 0, 0 // sign is where the offset starts
	for i, c := range text {
		switch {
		case c-'0' <= 9, c == ':', c == '.', c == 'B', c == 'C':
		case (c == '-' || c == '+') && spaces == 0:
		case (c == '-' || c == '+') && zone && sign == 0:
			sign = i
		case c == ' ' && spaces < 2:
			if spaces++; spaces == 1 {
				c = 'T'
			} else if sign > 0 && i-sign == len("+00") {
				dst = append(dst, ":00"...)
			}
		default:
			return dst, errors.New("malformed timestamp")
		}
		dst = append(dst, c)
	}
	if spaces == 0 || zone && sign == 0 {
		return dst, errors.New("malformed timestamp")
	}
	if sign > 0 && len(text)-sign == len("+00") {
		dst = append(dst, ":00"...)
	}
	return append(dst, '"'), nil
}
