package rowjson

// Shape describes how a table's rows are written: its columns in order, with their types, and the key.
type Shape struct {
	OID     uint32 // of the table: after DROP and CREATE the same name has another OID
	Schema  string
	Table   string
	Columns []Column
	Key     []int // the key's columns in order, as indexes into Columns
	// Fingerprint changes with anything in the catalog that changes the JSON of the table's rows: columns, types, enum labels,
	// attributes of composites, partitions. Two shapes are the same if their fingerprints are.
	Fingerprint string
}

// Column is one column of a Shape. Dropped columns are left out.
type Column struct {
	Name      string `json:"name"`
	TypeName  string `json:"type"` // as format_type prints it, with its modifier: "numeric(10,2)", "text[]"
	NotNull   bool   `json:"not_null,omitempty"`
	Default   string `json:"default,omitempty"`   // expression, as pg_get_expr prints it
	Identity  string `json:"identity,omitempty"`  // pg_attribute.attidentity: "a" always, "d" by default
	Generated string `json:"generated,omitempty"` // pg_attribute.attgenerated: "s" stored, "v" virtual
	Published bool   `json:"-"`                   // false for generated columns, which pgoutput leaves out

	TypeOID uint32 `json:"-"`
	Typmod  int32  `json:"-"`
	Type    Type   `json:"-"`
}

// Kind is how row_to_json writes a type: see json_categorize_type in Postgres' src/backend/utils/adt/jsonfuncs.c (before 16, json.c).
type Kind uint8

const (
	Text        Kind = iota // the text form as a JSON string
	Bool                    // t and f become true and false
	Number                  // as printed, or as a string if JSON does not allow it (NaN, Infinity)
	Timestamp               // ISO 8601: T between date and time
	TimestampTZ             // the same, with the offset as +00:00
	JSON                    // json and jsonb, as printed, on one line
	Array                   // {…} as nested arrays of Elem
	Vector                  // int2vector and oidvector: elements separated by spaces
	Composite               // (…) as an object of Fields
	Cast                    // a type with a cast to json, such as hstore: only the server can write it
)

// Type is a column's type. A domain is resolved to its base type.
type Type struct {
	Kind   Kind
	OID    uint32  // of the base type
	Elem   *Type   // of an Array or a Vector
	Delim  byte    // between the elements of an Array: a comma, except for box
	Fields []Field // of a Composite, without dropped ones
}

// Field is one attribute of a composite type.
type Field struct {
	Name string
	Type Type
}

// NeedsServer reports whether the type is or contains a Cast, so that only the server's to_json can write the value.
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
