package postgres

import (
	"fmt"

	"capture/snapshot/rowjson"
)

// typeEntry is a type in the first document of catalog.sql.
type typeEntry struct {
	OID    uint32 `json:"oid"`
	Type   string `json:"type"` // pg_type.typtype
	Base   uint32 `json:"base"` // of a domain
	Delim  string `json:"delim"`
	Elem   uint32 `json:"elem"`   // of a true array, else 0
	Output string `json:"output"` // the function's name; "" where it takes another type's values
	SQL    string `json:"sql"`    // its name in a cast
	Cast   bool   `json:"cast"`
	Fields []struct {
		Name string `json:"name"`
		Type uint32 `json:"type"`
	} `json:"fields"`
}

// typeSet is the types of a table's columns and all that they are made of.
type typeSet map[uint32]typeEntry

// The types that row_to_json has rules for; see json_categorize_type in Postgres' utils/adt/jsonfuncs.c.
const (
	boolOID, int8OID, int2OID, int4OID      = 16, 20, 21, 23
	int2vectorOID, oidvectorOID             = 22, 30
	textOID, jsonOID, bpcharOID, varcharOID = 25, 114, 1042, 1043
	float4OID, float8OID, numericOID        = 700, 701, 1700
	timestampOID, timestamptzOID, jsonbOID  = 1114, 1184, 3802
	uuidOID                                 = 2950
)

// base follows domains to the type that they stand on.
func (ts typeSet) base(oid uint32) (typeEntry, error) {
	e, ok := ts[oid]
	for ok && e.Type == "d" {
		oid = e.Base
		e, ok = ts[oid]
	}
	if !ok {
		return typeEntry{}, fmt.Errorf("type with oid %d is not in the catalog", oid)
	}
	return e, nil
}

func (ts typeSet) resolve(oid uint32) (rowjson.Type, error) {
	e, err := ts.base(oid)
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
		elem, err := ts.resolve(e.Elem)
		if err != nil {
			return rowjson.Type{}, err
		}
		t.Elem, t.Delim = &elem, ','
		if el, err := ts.base(e.Elem); err == nil && el.Delim != "" {
			t.Delim = el.Delim[0] // array_out takes the element type's, not the array type's own
		}
	case e.Type == "c":
		t.Kind = rowjson.Composite
		for _, f := range e.Fields {
			ft, err := ts.resolve(f.Type)
			if err != nil {
				return rowjson.Type{}, err
			}
			t.Fields = append(t.Fields, rowjson.Field{Name: f.Name, Type: ft})
		}
	case e.Cast:
		t.Kind = rowjson.Cast
	}
	return t, nil
}

// selectExpr is the expression that gives a column's value as [Table.SelectList] says. The type's own output function
// is called, since the cast to text differs from it for several types (bool, inet, character, "char").
func (ts typeSet) selectExpr(c columnEntry, t *rowjson.Type) string {
	col := QuoteIdentifier(c.Name)
	if t.ByServer() {
		return "pg_catalog.to_json(" + col + ")"
	}
	switch t.OID {
	case textOID, varcharOID, bpcharOID, jsonOID: // these send their text as it is
		return col
	}
	base := ts[t.OID]
	if base.Output == "" {
		return "CASE WHEN " + col + " IS NOT NULL THEN pg_catalog.concat(" + col + ") END" // concat finds the function by itself
	}
	if ts[c.Type].Type == "d" {
		col += "::" + base.SQL // polymorphic output functions, such as enum_out, take no domains
	}
	return base.Output + "(" + col + ")"
}
