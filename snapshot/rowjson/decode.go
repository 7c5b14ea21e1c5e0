package rowjson

import (
	"bytes"
	"errors"
)

var (
	errNotArray     = errors.New("not a JSON array")
	errNotObject    = errors.New("not a JSON object")
	errUnknownField = errors.New("a field that the composite type does not have")
)

func isNull(value []byte) bool { return bytes.Equal(value, null) }

// AppendText appends to dst the text form of a value of type t, as Postgres' input function for t reads it. It is the inverse
// of the [Encoder]. value must be valid JSON without white space around it, and not null.
//
// If row_to_json wrote the value, the result is the text that the type's output function printed, except for what JSON does
// not have: the lower bounds of arrays, and the inner dimensions of some arrays (see appendArrayText). Types with a cast to
// json are another exception (see appendHstoreText).
//
// If t is not a JSON type, AppendText also accepts a JSON string that contains the text form. Programs that do not know the
// type write values that way. For numbers and times, AppendText also accepts the forms described in lenient.go. AppendText
// does not check every value; Postgres rejects values that the type cannot hold.
func AppendText(dst []byte, t *Type, value []byte) ([]byte, error) {
	quoted := value[0] == '"'
	switch t.Kind {
	case JSON:
		return append(dst, value...), nil
	case Bool:
		if c := value[0]; c == 't' || c == 'f' {
			return append(dst, c), nil
		}
	case Number:
		if !quoted && isInteger(t) {
			return appendWholeNumber(dst, value), nil
		}
	case Timestamp, TimestampTZ:
		if quoted {
			return appendTimestampText(dst, t, value)
		}
	case Array:
		if !quoted {
			return appendArrayText(dst, t, value)
		}
	case Vector:
		if !quoted {
			return appendVectorText(dst, t, value)
		}
	case Composite:
		if !quoted {
			return appendCompositeText(dst, t, value)
		}
	case Cast:
		if value[0] == '{' && t.Hstore {
			return appendHstoreText(dst, value)
		}
	}
	if quoted {
		return AppendUnescaped(dst, value)
	}
	if isNumber := value[0] == '-' || value[0]-'0' <= 9; isNumber && IsTime(t) {
		return appendEpochText(dst, t, value)
	}
	return append(dst, value...), nil
}

// appendTimestampText is the inverse of appendTimestamp: for "2025-06-17T16:58:00+00:00" it appends "2025-06-17 16:58:00+00".
// It also converts a string such as /Date(1750179480000)/ (see ParseDateCall). It appends any other string unchanged, and
// Postgres reads or rejects that string.
func appendTimestampText(dst []byte, t *Type, value []byte) ([]byte, error) {
	start := len(dst)
	dst, err := AppendUnescaped(dst, value)
	if err != nil {
		return dst, err
	}
	text := dst[start:]
	if at, ok := ParseDateCall(text); ok {
		return appendTimeText(dst[:start], t, at)
	}
	i := bytes.IndexByte(text, 'T')
	if i < len("0000-00-00") || i+1 == len(text) || text[i+1]-'0' > 9 {
		return dst, nil
	}
	text[i] = ' '
	if at := bytes.LastIndex(text, []byte("+00:00")); at > i {
		text = append(text[:at+len("+00")], text[at+len("+00:00"):]...)
	}
	return dst[:start+len(text)], nil
}

// appendArrayText appends an array literal with the quotes that array_out writes. Arrays within the JSON array usually become
// further dimensions. But for some element types, such as json, int2vector and a domain over an array, an element can itself be
// an array in JSON. Arrays within the JSON array then become elements, because JSON does not distinguish such an element from a
// second dimension.
func appendArrayText(dst []byte, t *Type, value []byte) ([]byte, error) {
	if value[0] != '[' {
		return dst, errNotArray
	}
	flat := t.Elem.Kind == JSON || t.Elem.Kind == Array || t.Elem.Kind == Vector
	return appendDimension(dst, t, value, flat)
}

func appendDimension(dst []byte, t *Type, value []byte, flat bool) ([]byte, error) {
	delim := t.Delim
	if delim == 0 {
		delim = ','
	}
	elems, err := splitArray(value)
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
			if dst, err = AppendText(dst, t.Elem, elem); err == nil && needsArrayQuotes(dst[start:], delim) {
				dst = quoteTail(dst, start)
			}
		}
		if err != nil {
			return dst, err
		}
	}
	return append(dst, '}'), err
}

// needsArrayQuotes reports whether array_out quotes an element with this text.
func needsArrayQuotes(text []byte, delim byte) bool {
	if len(text) == 0 || bytes.EqualFold(text, null) {
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

// quoteTail quotes dst[start:], with a backslash before each quote and backslash.
func quoteTail(dst []byte, start int) []byte {
	text := bytes.Clone(dst[start:])
	dst = append(dst[:start], '"')
	for _, c := range text {
		if c == '"' || c == '\\' {
			dst = append(dst, '\\')
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

func appendVectorText(dst []byte, t *Type, value []byte) ([]byte, error) {
	if value[0] != '[' {
		return dst, errNotArray
	}
	elems, err := splitArray(value)
	for i, elem := range elems {
		if i > 0 {
			dst = append(dst, ' ')
		}
		if dst, err = AppendText(dst, t.Elem, elem); err != nil {
			return dst, err
		}
	}
	return dst, err
}

// appendCompositeText appends a record literal with the quotes that record_out writes. It finds the value of each field by
// the field's name. If a field has no member in the JSON object, the field becomes NULL.
func appendCompositeText(dst []byte, t *Type, value []byte) ([]byte, error) {
	if value[0] != '{' {
		return dst, errNotObject
	}
	members, err := splitObject(value)
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
		value := findMember(members, f.Name, i)
		if value != nil {
			known++
		}
		if value == nil || isNull(value) {
			continue
		}
		start := len(dst)
		if dst, err = AppendText(dst, &f.Type, value); err != nil {
			return dst, err
		}
		if needsFieldQuotes(dst[start:]) {
			dst = quoteFieldTail(dst, start)
		}
	}
	if known < len(members) {
		return dst, errUnknownField
	}
	return append(dst, ')'), nil
}

// findMember returns the value of the member with the given name, or nil. The member is usually the i-th.
func findMember(members []objectMember, name string, i int) []byte {
	if i < len(members) && string(members[i].name) == name {
		return members[i].value
	}
	for _, m := range members {
		if string(m.name) == name {
			return m.value
		}
	}
	return nil
}

// needsFieldQuotes reports whether record_out quotes a field with this text.
func needsFieldQuotes(text []byte) bool {
	for _, c := range text {
		switch c {
		case '"', '\\', '(', ')', ',', ' ', '\t', '\n', '\v', '\f', '\r':
			return true
		}
	}
	return len(text) == 0
}

// quoteFieldTail quotes dst[start:], with each quote and backslash doubled.
func quoteFieldTail(dst []byte, start int) []byte {
	text := bytes.Clone(dst[start:])
	dst = append(dst[:start], '"')
	for _, c := range text {
		if c == '"' || c == '\\' {
			dst = append(dst, c)
		}
		dst = append(dst, c)
	}
	return append(dst, '"')
}

// appendHstoreText appends an hstore literal. hstore is a type with a cast to json. For any other such type, AppendText does
// not convert the JSON back to the type's own text. It passes on the JSON, which the type's input function accepts or
// rejects. PostGIS, for example, accepts GeoJSON.
func appendHstoreText(dst, value []byte) ([]byte, error) {
	pairs, err := splitObject(value)
	if err != nil {
		return dst, err
	}
	for i, pair := range pairs {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		start := len(dst)
		dst = quoteTail(append(dst, pair.name...), start)
		dst = append(dst, "=>"...)
		if isNull(pair.value) {
			dst = append(dst, "NULL"...)
			continue
		}
		start = len(dst)
		if pair.value[0] != '"' {
			dst = append(dst, pair.value...)
		} else if dst, err = AppendUnescaped(dst, pair.value); err != nil {
			return dst, err
		}
		dst = quoteTail(dst, start)
	}
	return dst, nil
}
