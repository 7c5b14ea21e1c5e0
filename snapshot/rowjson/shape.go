package rowjson

// Shape is a table as its rows are written: columns in order, with their types, and the key.
type Shape struct {
	OID     uint32 // of the table; another OID under the same name is another table
	Schema  string
	Table   string
	Columns []Column
	Key     []int // indexes into Columns of the key's columns, in the order of the key
	// Fingerprint changes with anything in the catalog that changes how the table's rows read: columns, types, enum
	// labels, attributes of composites, partitions. Two shapes are the same where their fingerprints are.
	Fingerprint string
}

// Column is one column of a Shape, dropped ones left out.
type Column struct {
	Name      string `json:"name"`
	TypeName  string `json:"type"` // as format_type prints it, with its modifier: "numeric(10,2)", "text[]"
	NotNull   bool   `json:"not_null,omitempty"`
	Default   string `json:"default,omitempty"`   // the expression, as pg_get_expr prints it
	Identity  string `json:"identity,omitempty"`  // pg_attribute.attidentity: "a" always, "d" by default
	Generated string `json:"generated,omitempty"` // pg_attribute.attgenerated: "s" stored, "v" virtual
	Published bool   `json:"-"`                   // false where pgoutput leaves the column out (generated ones)

	TypeOID uint32 `json:"-"`
	Typmod  int32  `json:"-"`
	Type    Type   `json:"-"`
}

// Kind is how row_to_json writes a type (json_categorize_type in Postgres' utils/adt/json.c).
type Kind uint8

const (
	Text        Kind = iota // the text form as a JSON string
	Bool                    // t and f become true and false
	Number                  // as written where JSON allows it, else (NaN, Infinity) as a string
	Timestamp               // ISO 8601: T between date and time
	TimestampTZ             // the same, with the offset as +00:00
	JSON                    // json and jsonb, as written, on one line
	Array                   // {…}, nested, of Elem
	Vector                  // int2vector and oidvector: elements parted by spaces
	Composite               // (…), an object of Fields
	Cast                    // has a cast to json of its own (hstore): only the server can write it
)

// Type is a column's type with domains resolved to what they stand on.
type Type struct {
	Kind   Kind
	OID    uint32  // of the base type
	Elem   *Type   // of an Array or a Vector
	Delim  byte    // between an Array's elements: ',' but for box
	Fields []Field // of a Composite, dropped ones left out
}

// Field is one attribute of a composite type.
type Field struct {
	Name string
	Type Type
}

// NeedsServer says whether any part of the type is a Cast, so that only the server's to_json can write the value.
func (t *Type) NeedsServer() bool {
	switch t.Kind {
	case Cast:
		return true
	case Array, Vector:
		return t.Elem.NeedsServer()
	case Composite:
		for i := range t.Fields {
			if t.Fields[i].Type.NeedsServer() {
				return true
			}
		}
	}
	return false
}
