package recovery

import (
	"bytes"
	"errors"

	"capture/snapshot/rowjson"
)

// JSON values become the text forms that Postgres' input functions read: what [rowjson.Encoder] does, the other way round.
// Where a value came from row_to_json, the text is what the type's output function had printed, but for the lower bounds of
// arrays, which JSON does not have.

var (
	errNotArray  = errors.New("it is no array")
	errNotObject = errors.New("it is no object")
)

var jsonNull = []byte("null")

func isNull(value []byte) bool { return bytes.Equal(value, jsonNull) }

// appendText appends the text form of a value that is not null.
func appendText(dst []byte, t *rowjson.Type, value []byte) ([]byte, error) {
	quoted := value[0] == '"'
	switch t.Kind {
	case rowjson.JSON:
		return append(dst, value...), nil
	case rowjson.Bool:
		if quoted {
			return unescape(dst, value)
		}
		return append(dst, value[0]), nil // t or f; anything else Postgres refuses
	case rowjson.Timestamp, rowjson.TimestampTZ:
		if !quoted {
			return append(dst, value...), nil
		}
		return appendTimestampText(dst, value)
	case rowjson.Array, rowjson.Vector, rowjson.Composite, rowjson.Cast:
		if quoted { // the literal itself, as a program that does not know the type writes it
			return unescape(dst, value)
		}
	}
	switch {
	case t.Kind == rowjson.Array:
		return appendArray(dst, t, value)
	case t.Kind == rowjson.Vector:
		return appendVector(dst, t, value)
	case t.Kind == rowjson.Composite:
		return appendComposite(dst, t, value)
	case t.Kind == rowjson.Cast && value[0] == '{':
		return appendPairs(dst, value)
	case quoted:
		return unescape(dst, value)
	}
	return append(dst, value...), nil
}

// appendTimestampText undoes what row_to_json does to a timestamp: "2025-06-17T16:58:00+00:00" was "2025-06-17 16:58:00+00".
// Other forms are left for Postgres to read.
func appendTimestampText(dst, value []byte) ([]byte, error) {
	start := len(dst)
	dst, err := unescape(dst, value)
	if err != nil {
		return dst, err
	}
	text := dst[start:]
	i := bytes.IndexByte(text, 'T')
	if i < len("0000-00-00") || i+1 == len(text) || text[i+1]-'0' > 9 {
		return dst, nil
	}
	text[i] = ' '
	if at := bytes.LastIndex(text, []byte("+00:00")); at > i {
		text = append(text[:at+3], text[at+6:]...)
	}
	return dst[:start+len(text)], nil
}

// appendArray appends an array literal, quoted as array_out quotes. Arrays of json, and of domains over arrays, are taken to
// have one dimension: JSON can't tell a further one from an element that is an array, and both read the same.
func appendArray(dst []byte, t *rowjson.Type, value []byte) ([]byte, error) {
	if value[0] != '[' {
		return dst, errNotArray
	}
	flat := t.Elem.Kind == rowjson.JSON || t.Elem.Kind == rowjson.Array
	return appendDimension(dst, t, value, flat)
}

func appendDimension(dst []byte, t *rowjson.Type, value []byte, flat bool) ([]byte, error) {
	elems, err := elements(nil, value)
	if err != nil {
		return dst, err
	}
	delim := t.Delim
	if delim == 0 {
		delim = ','
	}
	dst = append(dst, '{')
	for i, elem := range elems {
		if i > 0 {
			dst = append(dst, delim)
		}
		switch {
		case isNull(elem):
			dst = append(dst, "NULL"...)
		case elem[0] == '[' && !flat:
			dst, err = appendDimension(dst, t, elem, false)
		default:
			start := len(dst)
			if dst, err = appendText(dst, t.Elem, elem); err == nil && quoteElement(dst[start:], delim) {
				dst = quoteFrom(dst, start)
			}
		}
		if err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), nil
}

// quoteElement says whether array_out quotes an element.
func quoteElement(text []byte, delim byte) bool {
	if len(text) == 0 || len(text) == 4 && bytes.EqualFold(text, jsonNull) {
		return true
	}
	for _, c := range text {
		switch c {
		case '"', '\\', '{', '}', ' ', '\t', '\n', '\v', '\f', '\r', delim:
			return true
		}
	}
	return false
}

// quoteFrom puts quotes around dst[start:], and a backslash before each quote and backslash in it.
func quoteFrom(dst []byte, start int) []byte {
	text := append([]byte(nil), dst[start:]...)
	dst = append(dst[:start], '"')
	for _, c := range text {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

func appendVector(dst []byte, t *rowjson.Type, value []byte) ([]byte, error) {
	if value[0] != '[' {
		return dst, errNotArray
	}
	elems, err := elements(nil, value)
	for i, elem := range elems {
		if i > 0 {
			dst = append(dst, ' ')
		}
		if dst, err = appendText(dst, t.Elem, elem); err != nil {
			return dst, err
		}
	}
	return dst, err
}

// appendComposite appends a record literal, quoted as record_out quotes.
func appendComposite(dst []byte, t *rowjson.Type, value []byte) ([]byte, error) {
	if value[0] != '{' {
		return dst, errNotObject
	}
	fields, err := members(nil, value)
	if err != nil {
		return dst, err
	}
	known := 0
	dst = append(dst, '(')
	for i := range t.Fields {
		f := &t.Fields[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		value := find(fields, f.Name, i)
		if value != nil {
			known++
		}
		if value == nil || isNull(value) {
			continue
		}
		start := len(dst)
		if dst, err = appendText(dst, &f.Type, value); err != nil {
			return dst, err
		}
		if quoteField(dst[start:]) {
			dst = quoteFieldFrom(dst, start)
		}
	}
	if known < len(fields) {
		return dst, errors.New("it has a field that the type lacks")
	}
	return append(dst, ')'), nil
}

// find is the value of the member called name, which is most likely the i-th; nil where there is none.
func find(ms []member, name string, i int) []byte {
	if i < len(ms) && string(ms[i].name) == name {
		return ms[i].value
	}
	for _, m := range ms {
		if string(m.name) == name {
			return m.value
		}
	}
	return nil
}

// quoteField says whether record_out quotes a field.
func quoteField(text []byte) bool {
	if len(text) == 0 {
		return true
	}
	for _, c := range text {
		switch c {
		case '"', '\\', '(', ')', ',', ' ', '\t', '\n', '\v', '\f', '\r':
			return true
		}
	}
	return false
}

// quoteFieldFrom puts quotes around dst[start:], with each quote and backslash doubled.
func quoteFieldFrom(dst []byte, start int) []byte {
	text := append([]byte(nil), dst[start:]...)
	dst = append(dst[:start], '"')
	for _, c := range text {
		if c == '"' || c == '\\' {
			dst = append(dst, c)
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// appendPairs appends an hstore literal. hstore is the one type with a cast to json of its own that comes with Postgres;
// what another one writes as an object, its input function has to take in this form, or refuses.
func appendPairs(dst, value []byte) ([]byte, error) {
	pairs, err := members(nil, value)
	if err != nil {
		return dst, err
	}
	for i, pair := range pairs {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		start := len(dst)
		dst = quoteFrom(append(dst, pair.name...), start)
		dst = append(dst, "=>"...)
		switch {
		case isNull(pair.value):
			dst = append(dst, "NULL"...)
		case pair.value[0] == '"':
			start := len(dst)
			if dst, err = unescape(dst, pair.value); err != nil {
				return dst, err
			}
			dst = quoteFrom(dst, start)
		default:
			start := len(dst)
			dst = quoteFrom(append(dst, pair.value...), start)
		}
	}
	return dst, nil
}
