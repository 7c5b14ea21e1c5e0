package postgres

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"capture/snapshot/rowjson"
)

// typeEntry is a type in the first document of a catalogQuery.
type typeEntry struct {
	OID    uint32 `json:"oid"`
	Type   string `json:"type"` // pg_type.typtype
	Base   uint32 `json:"base"` // OID of a domain's base type
	Delim  string `json:"delim"`
	Elem   uint32 `json:"elem"`   // OID of a true array's element type, else 0
	Output string `json:"output"` // SQL name of the output function; empty if the function cannot be called by its name, or if the call may need a privilege
	SQL    string `json:"sql"`    // type name for a cast; empty if the cast may need a privilege
	Cast   bool   `json:"cast"`   // whether row_to_json uses a cast of this type to json
	// Extension is the name and version of the extension that the type belongs to; empty if the type belongs to no
	// extension.
	Extension string `json:"extension"`
	Fields    []struct {
		Name string `json:"name"`
		Type uint32 `json:"type"`
	} `json:"fields"`
}

// typeSet contains the types of a table's columns and their component types, such as element types and field types. The
// map's keys are OIDs.
type typeSet map[uint32]typeEntry

// OIDs of the built-in types that this package treats specially. For row_to_json's rules, see json_categorize_type in
// Postgres' utils/adt/jsonfuncs.c.
const (
	boolOID, int8OID, int2OID, int4OID      = 16, 20, 21, 23
	int2vectorOID, oidvectorOID             = 22, 30
	textOID, jsonOID, bpcharOID, varcharOID = 25, 114, 1042, 1043
	float4OID, float8OID, numericOID        = 700, 701, 1700
	timestampOID, timestamptzOID, jsonbOID  = 1114, 1184, 3802
	uuidOID                                 = 2950
)

// baseType returns the type itself or, for a domain, the type at the end of the chain of base types.
func (ts typeSet) baseType(oid uint32) (typeEntry, error) {
	e, ok := ts[oid]
	for ok && e.Type == "d" {
		oid = e.Base
		e, ok = ts[oid]
	}
	if !ok {
		return typeEntry{}, fmt.Errorf("type with OID %d is not in the catalog", oid)
	}
	return e, nil
}

// resolveType returns how values of the type become JSON.
func (ts typeSet) resolveType(oid uint32) (rowjson.Type, error) {
	e, err := ts.baseType(oid)
	if err != nil {
		return rowjson.Type{}, err
	}
	t := rowjson.Type{OID: e.OID}
	switch {
	case e.OID == boolOID:
		t.Kind = rowjson.Bool
	case e.OID == int2OID, e.OID == int4OID, e.OID == int8OID,
		e.OID == float4OID, e.OID == float8OID, e.OID == numericOID:
		t.Kind = rowjson.Number
	case e.OID == timestampOID:
		t.Kind = rowjson.Timestamp
	case e.OID == timestamptzOID:
		t.Kind = rowjson.TimestampTZ
	case e.OID == jsonOID, e.OID == jsonbOID:
		t.Kind = rowjson.JSON
	case e.Elem != 0:
		t.Kind = rowjson.Array
		if e.OID == int2vectorOID || e.OID == oidvectorOID {
			t.Kind = rowjson.Vector
		}
		elem, err := ts.resolveType(e.Elem)
		if err != nil {
			return rowjson.Type{}, err
		}
		t.Elem, t.Delim = &elem, ','
		if el, err := ts.baseType(e.Elem); err == nil && el.Delim != "" {
			t.Delim = el.Delim[0] // array_out uses the element type's delimiter, not the array type's
		}
	case e.Type == "c":
		t.Kind = rowjson.Composite
		for _, f := range e.Fields {
			ft, err := ts.resolveType(f.Type)
			if err != nil {
				return rowjson.Type{}, err
			}
			t.Fields = append(t.Fields, rowjson.Field{Name: f.Name, Type: ft})
		}
	case e.Cast:
		t.Kind = rowjson.Cast
		t.Hstore = strings.HasPrefix(e.Extension, "hstore ")
	}
	return t, nil
}

// unstableType returns the name of an unstable type in the set, or "" if there is none; see [Table.UnstableType].
func (ts typeSet) unstableType() string {
	for _, oid := range slices.Sorted(maps.Keys(ts)) {
		if e := ts[oid]; strings.HasPrefix(e.SQL, "reg") || e.SQL == "aclitem" || e.Cast {
			return cmp.Or(e.SQL, fmt.Sprintf("with OID %d", oid))
		}
	}
	return ""
}

// selectExpr returns the expression for a column in [Table.SelectList]. It calls the type's output function, because a cast to
// text gives another result for several types (bool, inet, character, "char").
func (ts typeSet) selectExpr(c columnEntry, t *rowjson.Type) string {
	col := QuoteIdentifier(c.Name)
	if t.NeedsServer() {
		return "pg_catalog.to_json(" + col + ")"
	}
	switch t.OID {
	case textOID, varcharOID, bpcharOID, jsonOID: // their binary form is their text
		return col
	}
	base := ts[t.OID]
	domain := ts[c.Type].Type == "d"
	if base.Output == "" || domain && base.SQL == "" {
		// The name of the output function or of the type cannot be used here, or its use may need a privilege. concat calls
		// the output function without either name. The test for NULL uses num_nulls, because IS NULL would test the fields
		// of a composite value.
		return "CASE WHEN pg_catalog.num_nulls(" + col + ") = 0 THEN pg_catalog.concat(" + col + ") END"
	}
	if domain {
		col += "::" + base.SQL // polymorphic output functions such as enum_out do not accept domains
	}
	return base.Output + "(" + col + ")"
}
