package rowjson

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"regexp"
	"strconv"
	"strings"
	"unicode/utf8"
)

// Key identifies a row and determines its place: bytes.Compare of two keys is the order of their rows in the file.
// [Encoder.AppendKey] makes a Key.
//
// The order is total and depends only on the values. It compares the key's columns one after the other:
//
//   - smallint, integer, bigint and oid: by number
//   - numeric, real and double precision: by number, with NaN last; numbers that are equal but written differently (1.0 and
//     1.00) by their text
//   - date, timestamp and timestamptz: by time, with -infinity before all years BC, and infinity last
//   - all other types: by the bytes of their text form; for text this is the order of COLLATE "C", for uuid and bytea it is
//     Postgres' order
//
// Two rows have the same key if and only if the text forms of all key columns are the same.
type Key = []byte

// keyForm is the encoding of a column in a key. A key is the concatenation of its encoded columns. An encoded value is never a
// prefix of another encoded value of the same column. An integer is encoded as 8 bytes, big-endian with the sign bit flipped.
// Any other value has three parts: a prefix that sorts in the order of the type, the text form, which never contains a zero
// byte, and a zero byte as the end.
type keyForm uint8

const (
	keyText keyForm = iota // no prefix
	keyInteger
	keyNumeric // see appendNumericPrefix
	keyFloat   // 8 bytes, big-endian, with bits flipped so that the bytes sort like the numbers
	keyDate    // year as 4 bytes, big-endian with the sign bit flipped
)

type keyColumn struct {
	index int
	form  keyForm
}

func keyFormOf(t *Type) keyForm {
	switch t.OID {
	case 20, 21, 23, 26: // int8, int2, int4, oid
		return keyInteger
	case 1700: // numeric
		return keyNumeric
	case 700, 701: // float4, float8
		return keyFloat
	case 1082, 1114, 1184: // date, timestamp, timestamptz
		return keyDate
	}
	return keyText
}

// AppendKey appends the key of a row to dst. values has the form that [Encoder.AppendRow] describes. AppendKey reads only the
// key's columns, which must not be NULL or [Unchanged].
func (e *Encoder) AppendKey(dst []byte, values [][]byte) (Key, error) {
	start := len(dst)
	if len(values) != len(e.columns) {
		return dst, fmt.Errorf("encode key: %d values for %d columns", len(values), len(e.columns))
	}
	for _, k := range e.key {
		text := values[k.index]
		err := ErrKeyMissing
		if text != nil && !isUnchanged(text) {
			dst, err = appendKeyColumn(dst, k.form, text)
		}
		if err != nil {
			return dst[:start], fmt.Errorf("encode key column %s: %w", e.columns[k.index].label, err)
		}
	}
	return dst, nil
}

// ErrKeyMissing means that a row has no value for a column of the key.
var ErrKeyMissing = errors.New("key column is missing or unchanged")

func appendKeyColumn(dst []byte, form keyForm, text []byte) ([]byte, error) {
	switch form {
	case keyInteger:
		n, ok := parseInteger(text)
		if !ok {
			return dst, errors.New("malformed integer")
		}
		return binary.BigEndian.AppendUint64(dst, uint64(n)^1<<63), nil
	case keyNumeric:
		dst = appendNumericPrefix(dst, text)
	case keyFloat:
		dst = appendFloatPrefix(dst, text)
	case keyDate:
		dst = binary.BigEndian.AppendUint32(dst, uint32(parseYear(text))^1<<31)
	}
	if bytes.IndexByte(text, 0) >= 0 {
		return dst, errors.New("malformed text: it contains a zero byte")
	}
	return append(append(dst, text...), 0), nil
}

// parseInteger parses an integer as Postgres prints it: without a plus sign or leading zeros.
func parseInteger(text []byte) (int64, bool) {
	digits := text
	negative := len(text) > 0 && text[0] == '-'
	if negative {
		digits = text[1:]
	}
	if len(digits) == 0 || len(digits) > 19 || digits[0] == '0' && len(text) > 1 {
		return 0, false
	}
	var n uint64
	for _, c := range digits {
		if c-'0' > 9 {
			return 0, false
		}
		n = n*10 + uint64(c-'0')
	}
	if negative {
		return -int64(n), n <= 1<<63
	}
	return int64(n), n < 1<<63
}

// Classes of numeric values, in sort order. The class is the first byte of a numeric's prefix.
const (
	numericNegInf = 1 + iota
	numericNegative
	numericZero
	numericPositive
	numericInf
	numericNaN
)

// appendNumericPrefix appends the prefix of a numeric value. The prefix begins with the value's class. For a positive
// number, three parts follow: the exponent (the position of the first digit that is not 0, relative to the decimal point) in
// 4 bytes, the digits without zeros at either end, and a zero byte. For a negative number, the same parts follow with all
// bits inverted.
func appendNumericPrefix(dst, text []byte) []byte {
	digits, negative := bytes.CutPrefix(text, []byte{'-'})
	switch {
	case len(digits) == 0 || digits[0] == 'N':
		return append(dst, numericNaN)
	case digits[0] == 'I' && negative:
		return append(dst, numericNegInf)
	case digits[0] == 'I':
		return append(dst, numericInf)
	}
	whole, fraction, _ := bytes.Cut(digits, []byte{'.'})
	exponent := int32(0)
	whole = bytes.TrimLeft(whole, "0")
	if len(whole) > 0 {
		exponent = int32(len(whole))
	} else {
		trimmed := bytes.TrimLeft(fraction, "0")
		exponent = int32(len(trimmed) - len(fraction))
		fraction = trimmed
	}
	fraction = bytes.TrimRight(fraction, "0")
	if len(fraction) == 0 {
		whole = bytes.TrimRight(whole, "0")
	}
	if len(whole)+len(fraction) == 0 {
		return append(dst, numericZero)
	}
	class := byte(numericPositive)
	if negative {
		class = numericNegative
	}
	dst = append(dst, class)
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, uint32(exponent)^1<<31)
	dst = append(append(append(dst, whole...), fraction...), 0)
	if negative {
		for i := start; i < len(dst); i++ {
			dst[i] = ^dst[i]
		}
	}
	return dst
}

func appendFloatPrefix(dst, text []byte) []byte {
	f, err := strconv.ParseFloat(string(text), 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) || math.IsNaN(f) {
		return binary.BigEndian.AppendUint64(dst, math.MaxUint64)
	}
	if f == 0 {
		f = 0 // turns -0 into 0: the two are equal numbers, so they need equal prefixes
	}
	b := math.Float64bits(f)
	if b>>63 != 0 {
		b = ^b
	} else {
		b |= 1 << 63
	}
	return binary.BigEndian.AppendUint64(dst, b)
}

// parseYear returns the year of a date or timestamp. A year BC is negative. For -infinity and infinity, it returns the
// lowest and the highest int32. The key of a date or timestamp is its year, followed by its text form. No other prefix is
// necessary: the text forms of one year sort by time, even those of a year BC.
func parseYear(text []byte) int32 {
	switch {
	case bytes.HasPrefix(text, []byte("-")):
		return math.MinInt32
	case bytes.HasPrefix(text, []byte("i")):
		return math.MaxInt32
	}
	n := int32(0)
	for _, c := range text {
		if c-'0' > 9 || n > math.MaxInt32/10-1 {
			break
		}
		n = n*10 + int32(c-'0')
	}
	if bytes.HasSuffix(text, []byte(" BC")) {
		return -n
	}
	return n
}

// HiddenText stands for a value that may be a user's text and is not shown.
const HiddenText = "…"

// These patterns match the text forms of values that cannot contain a user's text.
var (
	uuidPattern   = regexp.MustCompile(`^[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}$`)
	numberPattern = regexp.MustCompile(`^(?:-?[0-9.]+(?:[eE][-+]?[0-9]+)?|NaN|-?Infinity)$`)
	timePattern   = regexp.MustCompile(`^(?:[0-9]{4,7}-[0-9]{2}-[0-9]{2}(?:[ T][0-9:.]+)?(?:[-+][0-9:]+)?(?: BC)?|-?infinity)$`)
)

// IsTextFree reports whether a value is certainly no text that a user has written: a number, a time or a UUID. valueText is
// the text form of the value. It may come from a file, so it need not be valid for the type.
func IsTextFree(t *Type, valueText []byte) bool {
	return t.Kind == Number && numberPattern.Match(valueText) || IsTime(t) && timePattern.Match(valueText) || uuidPattern.Match(valueText)
}

// KeyString returns a key in a form for people: 42, or (1,"a b") if the key has several columns. It quotes values that contain
// spaces, quotes or similar characters. See also [Shape.UnprovenKey].
func (s *Shape) KeyString(k Key) string {
	texts, ok := s.KeyTexts(k)
	if !ok {
		return "malformed key"
	}
	var b strings.Builder
	for i, text := range texts {
		if i > 0 {
			b.WriteByte(',')
		}
		if s.UnprovenKey && !IsTextFree(&s.Columns[s.Key[i]].Type, text) {
			b.WriteString(HiddenText)
		} else {
			b.WriteString(quoteKey(text))
		}
	}
	if len(s.Key) > 1 {
		return "(" + b.String() + ")"
	}
	return b.String()
}

// KeyTexts returns the text forms of the key's columns. It returns false if k is not a key of this shape.
func (s *Shape) KeyTexts(k Key) (texts [][]byte, ok bool) {
	texts = make([][]byte, len(s.Key))
	for i, index := range s.Key {
		if index >= len(s.Columns) {
			return nil, false
		}
		if texts[i], k, ok = cutKeyColumn(k, keyFormOf(&s.Columns[index].Type)); !ok {
			return nil, false
		}
	}
	return texts, len(k) == 0
}

// cutKeyColumn cuts the first column off a key. It returns the column's text form and the rest of the key.
func cutKeyColumn(k Key, form keyForm) (text []byte, rest Key, ok bool) {
	skip := 0
	switch form {
	case keyInteger:
		if len(k) < 8 {
			return nil, nil, false
		}
		n := int64(binary.BigEndian.Uint64(k) ^ 1<<63)
		return strconv.AppendInt(nil, n, 10), k[8:], true
	case keyNumeric:
		skip = numericPrefixLength(k)
	case keyFloat:
		skip = 8
	case keyDate:
		skip = 4
	}
	if skip > len(k) {
		return nil, nil, false
	}
	return bytes.Cut(k[skip:], []byte{0})
}

func numericPrefixLength(k Key) int {
	const head = 1 + 4 // the class and the exponent
	if len(k) < head || k[0] != numericPositive && k[0] != numericNegative {
		return 1
	}
	end := byte(0)
	if k[0] == numericNegative {
		end = ^end
	}
	return head + bytes.IndexByte(k[head:], end) + 1
}

// quoteKey quotes a text form if it is empty or not valid UTF-8, or if it contains a space, an ASCII control character, a
// quote, a parenthesis, a comma or a backslash.
func quoteKey(text []byte) string {
	plain := len(text) > 0 && utf8.Valid(text)
	for _, c := range text {
		if c <= ' ' || c == 0x7f || strings.IndexByte(`"'(),\`, c) >= 0 {
			plain = false
		}
	}
	if plain {
		return string(text)
	}
	return strconv.Quote(string(text))
}
