package verify

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"hash/maphash"
	"slices"
	"strconv"
	"time"

	"capture/snapshot/rowjson"
)

// valueHasher hashes rows by their values, so that a file of another program can be compared with the table. Two rows have
// the same hash if the table would store the same values for both. Therefore, the order of columns and members, white space,
// escapes, and the forms of numbers and times do not matter.
type valueHasher struct {
	seed  maphash.Seed
	types map[string]*rowjson.Type // types of the columns, by name
	buf   []byte
}

func newValueHasher(seed maphash.Seed, shape *rowjson.Shape) *valueHasher {
	h := &valueHasher{seed: seed, types: make(map[string]*rowjson.Type, len(shape.Columns))}
	for i := range shape.Columns {
		h.types[shape.Columns[i].Name] = &shape.Columns[i].Type
	}
	return h
}

// hashRow returns the hash of a row. line must be a valid JSON object.
func (h *valueHasher) hashRow(line []byte) uint64 {
	hash, _ := h.hashObject(line, func(name []byte) *rowjson.Type { return h.types[string(name)] })
	return hash
}

// hashColumn returns the hash of a column's value.
func (h *valueHasher) hashColumn(name string, value []byte) uint64 {
	hash, _ := h.hashValue(h.types[name], value)
	return hash
}

// hashValue returns the hash of the value that text starts with, and the text after it. t is the type of the value, or nil if
// the value is within a JSON column.
func (h *valueHasher) hashValue(t *rowjson.Type, text []byte) (hash uint64, rest []byte) {
	text = trimSpace(text)
	switch text[0] {
	case '{':
		return h.hashObject(text, func(name []byte) *rowjson.Type { return fieldType(t, name) })
	case '[':
		return h.hashArray(t, text)
	case '"':
		end := 1
		for text[end] != '"' {
			if text[end] == '\\' {
				end++
			}
			end++
		}
		return h.hashString(t, text[:end+1]), text[end+1:]
	}
	end := bytes.IndexAny(text, ",]} \t\r\n")
	if end < 0 {
		end = len(text)
	}
	return h.hashPlain(t, text[:end]), text[end:]
}

func trimSpace(text []byte) []byte {
	for len(text) > 0 && (text[0] == ' ' || text[0] == '\n' || text[0] == '\r' || text[0] == '\t') {
		text = text[1:]
	}
	return text
}

// fieldType returns the type of the member with the given name in an object of type t. It returns nil if t is not a
// composite type, or if t has no such field.
func fieldType(t *rowjson.Type, name []byte) *rowjson.Type {
	if t == nil || t.Kind != rowjson.Composite {
		return nil
	}
	for i := range t.Fields {
		if t.Fields[i].Name == string(name) {
			return &t.Fields[i].Type
		}
	}
	return nil
}

// hashObject returns the hash of an object, and the text after it. The order of the members does not matter. If a name is
// repeated, only the last member counts, as in jsonb.
func (h *valueHasher) hashObject(text []byte, typeOf func(name []byte) *rowjson.Type) (hash uint64, rest []byte) {
	type member struct{ name, value uint64 }
	var members []member
	for text = trimSpace(text[1:]); text[0] != '}'; text = trimSpace(text) {
		if text[0] == ',' {
			text = trimSpace(text[1:])
		}
		end := 1
		for text[end] != '"' {
			if text[end] == '\\' {
				end++
			}
			end++
		}
		name := h.unescape(text[:end+1])
		m := member{name: h.hashBytes('s', name)}
		t := typeOf(name)
		text = trimSpace(text[end+1:])
		m.value, text = h.hashValue(t, text[1:])
		members = append(members, m)
	}
	slices.SortStableFunc(members, func(a, b member) int { return cmp.Compare(a.name, b.name) })
	hash = 'o'
	for i, m := range members {
		if i+1 == len(members) || members[i+1].name != m.name {
			hash = h.combine(h.combine(hash, m.name), m.value)
		}
	}
	return hash, text[1:]
}

// hashArray returns the hash of an array, and the text after it.
func (h *valueHasher) hashArray(t *rowjson.Type, text []byte) (hash uint64, rest []byte) {
	hash = 'a'
	for text = trimSpace(text[1:]); text[0] != ']'; text = trimSpace(text) {
		if text[0] == ',' {
			text = trimSpace(text[1:])
		}
		elem := t
		if t != nil && t.Elem != nil && (text[0] != '[' || t.Elem.Kind == rowjson.JSON || t.Elem.Kind == rowjson.Array) {
			elem = t.Elem
		}
		var value uint64
		value, text = h.hashValue(elem, text)
		hash = h.combine(hash, value)
	}
	return hash, text[1:]
}

func (h *valueHasher) combine(a, b uint64) uint64 {
	var pair [16]byte
	binary.LittleEndian.PutUint64(pair[:8], a)
	binary.LittleEndian.PutUint64(pair[8:], b)
	return maphash.Bytes(h.seed, pair[:])
}

// hashBytes returns the hash of a scalar's canonical form. kind keeps scalars of different kinds apart.
func (h *valueHasher) hashBytes(kind byte, canonical []byte) uint64 {
	return h.combine(uint64(kind), maphash.Bytes(h.seed, canonical))
}

// unescape returns the text of a JSON string. The text is valid until the next call. If Postgres cannot store the text,
// unescape returns the string unchanged.
func (h *valueHasher) unescape(str []byte) []byte {
	if bytes.IndexByte(str, '\\') < 0 {
		return str[1 : len(str)-1]
	}
	text, err := rowjson.AppendUnescaped(h.buf[:0], str)
	if err != nil {
		return str
	}
	h.buf = text
	return text
}

// OIDs (pg_type.dat) of the types whose texts are compared by special rules.
const (
	float4OID = 700
	float8OID = 701
	bpcharOID = 1042
	dateOID   = 1082
	uuidOID   = 2950
)

// hashString returns the hash of a JSON string that is a value of type t.
func (h *valueHasher) hashString(t *rowjson.Type, str []byte) uint64 {
	text := h.unescape(str)
	switch {
	case t == nil:
	case rowjson.IsTime(t):
		if at, ok := parseTime(t, text); ok {
			return h.hashTime(at)
		}
	case t.Kind == rowjson.Number:
		if number, ok := canonicalNumber(t, text); ok {
			return h.hashBytes('d', number)
		}
	case t.Kind == rowjson.Bool:
		switch string(text) {
		case "t", "true", "1":
			return h.hashBytes('p', []byte("true"))
		case "f", "false", "0":
			return h.hashBytes('p', []byte("false"))
		}
	case t.OID == bpcharOID:
		text = bytes.TrimRight(text, " ")
	case t.OID == uuidOID:
		text = bytes.ToLower(text)
	}
	return h.hashBytes('s', text)
}

// hashPlain returns the hash of a number, true, false or null that is a value of type t.
func (h *valueHasher) hashPlain(t *rowjson.Type, text []byte) uint64 {
	isNumber := text[0] == '-' || text[0] >= '0' && text[0] <= '9'
	switch {
	case isNumber && t != nil && rowjson.IsTime(t):
		if at, _, err := rowjson.ParseEpoch(text); err == nil {
			return h.hashTime(at)
		}
	case isNumber && t != nil && t.Kind == rowjson.Bool:
		if string(text) == "1" {
			text = []byte("true")
		} else if string(text) == "0" {
			text = []byte("false")
		}
	case t != nil && t.Kind == rowjson.Text && string(text) != "null":
		return h.hashBytes('s', text) // a column of a text type stores such a value as text
	case isNumber:
		if number, ok := canonicalNumber(t, text); ok {
			return h.hashBytes('d', number)
		}
	}
	return h.hashBytes('p', text)
}

func (h *valueHasher) hashTime(at time.Time) uint64 {
	at = at.Round(time.Microsecond) // Postgres' types have a resolution of one microsecond
	return h.combine('t', h.combine(uint64(at.Unix()), uint64(at.Nanosecond())))
}

// canonicalNumber returns the canonical form of a number: its significant digits and a power of ten. For the types float4
// and float8, the canonical form is the shortest text of the float. canonicalNumber returns false if text is not a decimal
// number. NaN and Infinity count as numbers only for float4 and float8.
func canonicalNumber(t *rowjson.Type, text []byte) ([]byte, bool) {
	if t != nil && (t.OID == float4OID || t.OID == float8OID) {
		bits := 64
		if t.OID == float4OID {
			bits = 32
		}
		f, err := strconv.ParseFloat(string(text), bits)
		return strconv.AppendFloat(nil, f, 'g', -1, bits), err == nil
	}
	mantissa, exponent, hasExponent := bytes.Cut(bytes.ToLower(text), []byte{'e'})
	power := 0
	if hasExponent {
		var err error
		if power, err = strconv.Atoi(string(exponent)); err != nil {
			return nil, false
		}
	}
	negative := bytes.HasPrefix(mantissa, []byte{'-'})
	whole, fraction, _ := bytes.Cut(bytes.TrimPrefix(mantissa, []byte{'-'}), []byte{'.'})
	digits := append(bytes.Clone(whole), fraction...)
	for _, c := range digits {
		if c < '0' || c > '9' {
			return nil, false
		}
	}
	power -= len(fraction)
	digits = bytes.TrimLeft(digits, "0")
	significant := bytes.TrimRight(digits, "0")
	power += len(digits) - len(significant)
	if len(significant) == 0 {
		return []byte("0"), len(whole) > 0
	}
	canonical := make([]byte, 0, len(significant)+8)
	if negative {
		canonical = append(canonical, '-')
	}
	canonical = append(append(canonical, significant...), 'e')
	return strconv.AppendInt(canonical, int64(power), 10), true
}

// parseTime parses the text of a time, as row_to_json and most programs write it. A time without a zone is in UTC. If the type
// has no zone, parseTime ignores the zone of the text, as Postgres does.
func parseTime(t *rowjson.Type, text []byte) (time.Time, bool) {
	if at, ok := rowjson.ParseDateCall(text); ok {
		return at, true
	}
	for _, layout := range timeLayouts {
		at, err := time.Parse(layout, string(text))
		if err != nil {
			continue
		}
		switch {
		case t.OID == dateOID:
			at = time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, time.UTC)
		case t.Kind == rowjson.Timestamp:
			at = time.Date(at.Year(), at.Month(), at.Day(), at.Hour(), at.Minute(), at.Second(), at.Nanosecond(), time.UTC)
		}
		return at.UTC(), true
	}
	return time.Time{}, false
}

// timeLayouts are the forms that parseTime accepts. A fraction of a second may follow the seconds.
var timeLayouts = []string{
	"2006-01-02T15:04:05", "2006-01-02T15:04:05Z07:00", "2006-01-02 15:04:05", "2006-01-02 15:04:05Z07:00", "2006-01-02 15:04:05Z07",
	"2006-01-02T15:04:05Z0700", "2006-01-02 15:04:05 Z0700", "2006-01-02T15:04:05Z07", time.DateOnly,
}
