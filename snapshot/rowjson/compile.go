package rowjson

import (
	"errors"
	"unicode/utf8"
)

// column is a Column prepared for encoding.
type column struct {
	member
	needsServer bool
	checkUTF8   bool   // whether the text may be invalid UTF-8
	label       string // name and type, for errors
}

// member is a column of a row or a field of a composite.
type member struct {
	opening []byte // text before the value: {"name": for the first member, ,"name": for all later members
	node    node
}

// node is a Type prepared for encoding.
type node struct {
	kind   Kind
	delim  byte
	elem   *node
	fields []member
}

// maxNesting is the maximum depth of types within types. Real types need far less. In Postgres, the depth of a type is
// always finite, because a type cannot contain itself.
const maxNesting = 100

// charOID is the OID of the type "char", a single byte. Before PostgreSQL 16 its output may not be valid in the database's
// encoding.
const charOID = 18

// compileType returns t prepared for encoding. depth is the number of types that contain t.
func compileType(t *Type, depth int) (node, error) {
	n := node{kind: t.Kind, delim: t.Delim}
	if depth > maxNesting {
		return n, errors.New("types are nested too deeply")
	}
	switch t.Kind {
	case Array, Vector:
		if t.Elem == nil {
			return n, errors.New("the array has no element type")
		}
		if n.delim == 0 {
			n.delim = ','
		}
		elem, err := compileType(t.Elem, depth+1)
		if err != nil {
			return n, err
		}
		n.elem = &elem
	case Composite:
		n.fields = make([]member, len(t.Fields))
		for i := range t.Fields {
			f := &t.Fields[i]
			field, err := compileType(&f.Type, depth+1)
			if err != nil {
				return n, err
			}
			n.fields[i] = member{opening: memberOpening(i, f.Name), node: field}
		}
	}
	return n, nil
}

// memberOpening returns the text before the value of an object's i-th member: a brace or a comma, then the name and a colon.
func memberOpening(i int, name string) []byte {
	opening := []byte{','}
	if i == 0 {
		opening[0] = '{'
	}
	text := []byte(name)
	if !utf8.Valid(text) {
		text = replaceInvalid(text)
	}
	return append(appendString(opening, text), ':')
}

// hasOID reports whether t has the given OID, or contains a type with this OID.
func (t *Type) hasOID(oid uint32) bool {
	if t.OID == oid || t.Elem != nil && t.Elem.hasOID(oid) {
		return true
	}
	for i := range t.Fields {
		if t.Fields[i].Type.hasOID(oid) {
			return true
		}
	}
	return false
}
