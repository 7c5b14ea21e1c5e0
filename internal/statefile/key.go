package statefile

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"capture/internal/postgres"
	"capture/snapshot/rowjson"
	"capture/store/manifest"
)

// KeyReader computes the keys of a file's rows.
type KeyReader struct {
	shape   *rowjson.Shape
	encoder *rowjson.Encoder
	unknown []bool     // for each column, whether only the database knows how to sort its values; nil if shape is from the database
	noKey   NoKeyError // reason why the rows have no key; "" if they have one

	quotedNumber bool // whether a key whose shape has UnprovenKey set had a number in quotation marks, which may be a user's text

	values [][]byte // text forms of the key columns, indexed like shape.Columns
	text   []byte   // buffer of the texts in values
	key    []byte
}

// NoKeyError is the reason why the keys of a file's rows cannot be computed. The order of the rows is then unknown, too.
type NoKeyError string

func (e NoKeyError) Error() string { return string(e) }

// NewKeyReader returns a KeyReader for the rows of a database table that has the given shape.
func NewKeyReader(shape *rowjson.Shape) (*KeyReader, error) {
	encoder, err := rowjson.NewEncoder(shape, false)
	if err != nil {
		return nil, err
	}
	return &KeyReader{shape: shape, encoder: encoder, values: make([][]byte, len(shape.Columns)), text: []byte{}}, nil
}

// NewManifestKeyReader returns a KeyReader that knows only the manifest's names of the column types. If a type is not one of
// orderedTypes, its values must be JSON strings, and their order is the order of their texts. m may be nil.
func NewManifestKeyReader(m *manifest.Manifest) *KeyReader {
	if m == nil {
		return &KeyReader{noKey: "it has no manifest beside it, so its key is unknown: its order was not checked"}
	}
	k, err := NewKeyReader(shapeOf(m))
	if err != nil {
		return &KeyReader{noKey: NoKeyError("the manifest's key cannot be used (" + err.Error() + "): its order was not checked")}
	}
	k.shape.UnprovenKey = true
	k.unknown = make([]bool, len(k.shape.Columns))
	for i := range k.shape.Columns {
		k.unknown[i] = k.shape.Columns[i].Type.OID == 0
	}
	return k
}

// Key returns the key of a row, which is valid until the next call. The error is a [NoKeyError] if no key of the file can be
// computed.
func (k *KeyReader) Key(members []Member) (rowjson.Key, error) {
	if k.noKey != "" {
		return nil, k.noKey
	}
	k.text = k.text[:0]
	for _, i := range k.shape.Key {
		c := &k.shape.Columns[i]
		value := FindMember(members, c.Name, i)
		switch {
		case value == nil:
			return nil, fmt.Errorf("it lacks column %s of the key", postgres.QuoteIdentifier(c.Name))
		case string(value) == "null":
			return nil, fmt.Errorf("column %s of the key is null", postgres.QuoteIdentifier(c.Name))
		case k.unknown != nil && k.unknown[i] && value[0] != '"':
			k.noKey = NoKeyError(fmt.Sprintf("only the database knows the key's type %s: its order was not checked", c.TypeName))
			return nil, k.noKey
		}
		k.quotedNumber = k.quotedNumber || k.shape.UnprovenKey && c.Type.Kind == rowjson.Number && value[0] == '"'
		start := len(k.text)
		text, err := rowjson.AppendText(k.text, &c.Type, value)
		if err != nil {
			return nil, fmt.Errorf("column %s of the key: %w", postgres.QuoteIdentifier(c.Name), err)
		}
		k.text = text
		k.values[i] = text[start:len(text):len(text)]
	}
	key, err := k.encoder.AppendKey(k.key[:0], k.values)
	if err != nil {
		return nil, err
	}
	k.key = key
	return key, nil
}

// DescribeNesting is like the function [DescribeNesting], for the table whose keys k computes.
func (k *KeyReader) DescribeNesting(members []Member) string {
	if k.shape == nil {
		return ""
	}
	return DescribeNesting(k.shape, members)
}

// KeyString returns a key in readable form; see [rowjson.Shape.UnprovenKey].
func (k *KeyReader) KeyString(key rowjson.Key) string {
	if k.quotedNumber {
		return rowjson.HiddenText
	}
	return k.shape.KeyString(key)
}

// shapeOf returns the shape that a manifest describes. It treats a type whose name it does not know as text.
func shapeOf(m *manifest.Manifest) *rowjson.Shape {
	s := &rowjson.Shape{Schema: m.Table.Schema, Table: m.Table.Name, Fingerprint: "manifest"}
	for _, c := range m.Columns {
		c.Type = typeNamed(typeModifier.ReplaceAllString(c.TypeName, ""))
		s.Columns = append(s.Columns, c)
	}
	for _, name := range m.Key {
		s.Key = append(s.Key, slices.IndexFunc(m.Columns, func(c rowjson.Column) bool { return c.Name == name }))
	}
	return s
}

var typeModifier = regexp.MustCompile(`\([^)]*\)`)

// orderedTypes contains the types whose values do not sort by their texts. It maps the types' names to their OIDs
// (pg_type.dat).
var orderedTypes = map[string]uint32{
	"smallint": 21, "integer": 23, "bigint": 20, "oid": 26, "numeric": 1700, "real": 700, "double precision": 701,
	"date": 1082, "timestamp without time zone": 1114, "timestamp with time zone": 1184,
}

// typeNamed returns the type with the given name, as far as its properties follow from the name. The name has the form that
// format_type prints, without the modifier.
func typeNamed(name string) rowjson.Type {
	if elem, ok := strings.CutSuffix(name, "[]"); ok {
		t := typeNamed(elem)
		return rowjson.Type{Kind: rowjson.Array, Elem: &t, Delim: ','}
	}
	t := rowjson.Type{OID: orderedTypes[name], Kind: rowjson.Text}
	switch name {
	case "smallint", "integer", "bigint", "numeric", "real", "double precision":
		t.Kind = rowjson.Number
	case "boolean":
		t.Kind = rowjson.Bool
	case "json", "jsonb":
		t.Kind = rowjson.JSON
	case "timestamp without time zone":
		t.Kind = rowjson.Timestamp
	case "timestamp with time zone":
		t.Kind = rowjson.TimestampTZ
	}
	return t
}
