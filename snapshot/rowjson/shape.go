package rowjson

// FormatVersion is the version of the lines and keys that this package produces. Raise it if your change of the package gives
// any row another line or another key than before. TestFormatVersion fails after such a change. If a file has rows of another
// version, capture does not load them, but reads the rows from the database.
const FormatVersion = 1

// Shape describes a table and how its rows are written: the columns in order, with their types, and the key.
type Shape struct {
	OID     uint32 // OID of the table; a table that is dropped and created again has another OID
	Schema  string
	Table   string
	Columns []Column
	Key     []int // the key's columns as indexes into Columns, in the order of the key
	// Fingerprint identifies everything in the catalog that determines the JSON of the table's rows: columns, types, enum
	// labels, attributes of composites, partitions. Two shapes are the same if their fingerprints are equal.
	Fingerprint string

	// UnprovenKey is set if only a manifest names the columns of the key. Anybody may have written the manifest, so the columns
	// may hold users' texts. KeyString therefore shows only values for which IsTextFree is true.
	UnprovenKey bool

	KeyPeriod    bool          // whether the last column of the primary key is WITHOUT OVERLAPS
	Partitioning *Partitioning // how the table is partitioned; nil if it is not
}

// Partitioning is how a table is divided into partitions.
type Partitioning struct {
	Strategy   string      `json:"strategy"`          // RANGE, LIST or HASH
	Columns    []string    `json:"columns,omitempty"` // columns of the partition key; empty if the key contains anything else, such as an expression
	Definition string      `json:"definition"`        // partition key as pg_get_partkeydef prints it
	Partitions []Partition `json:"partitions,omitempty"`
}

// Partition is one partition of a table. It may be partitioned itself.
type Partition struct {
	Name         string        `json:"name"`
	Bound        string        `json:"bound"` // bound as pg_get_expr prints it: "FOR VALUES IN (1, 2)"
	Partitioning *Partitioning `json:"partitioning,omitempty"`
}

// SequenceOptions are the options of the sequence that a column owns.
type SequenceOptions struct {
	Start     int64 `json:"start"`
	Increment int64 `json:"increment"`
	Min       int64 `json:"min"`
	Max       int64 `json:"max"`
	Cache     int64 `json:"cache"`
	Cycle     bool  `json:"cycle,omitempty"`
}

// Column is one column of a Shape. A Shape has no dropped columns.
type Column struct {
	Name      string `json:"name"`
	TypeName  string `json:"type"` // type as format_type prints it, with its modifier: "numeric(10,2)", "text[]"
	NotNull   bool   `json:"not_null,omitempty"`
	Default   string `json:"default,omitempty"`   // default expression, as pg_get_expr prints it
	Identity  string `json:"identity,omitempty"`  // pg_attribute.attidentity: "a" always, "d" by default
	Generated string `json:"generated,omitempty"` // pg_attribute.attgenerated: "s" stored, "v" virtual
	Collation string `json:"collation,omitempty"` // SQL name of the collation; empty for the type's default
	// Sequence has the options of the column's own sequence; nil if the column has no sequence, or if all options are the
	// defaults.
	Sequence  *SequenceOptions `json:"sequence,omitempty"`
	Published bool             `json:"-"` // whether the stream of pgoutput has the column; before PostgreSQL 18, it has no generated columns

	TypeOID uint32 `json:"-"`
	Typmod  int32  `json:"-"`
	Type    Type   `json:"-"`
}

// Kind is the way in which row_to_json writes a type. See json_categorize_type in Postgres' src/backend/utils/adt/jsonfuncs.c
// (before version 16, json.c).
type Kind uint8

const (
	Text        Kind = iota // the text form as a JSON string
	Bool                    // t and f become true and false
	Number                  // the text form, or a JSON string if JSON has no such number (NaN, Infinity)
	Timestamp               // ISO 8601, with a T between date and time
	TimestampTZ             // as Timestamp, with the offset as +00:00
	JSON                    // json and jsonb: the text form, on one line
	Array                   // {…} as nested JSON arrays of Elem
	Vector                  // int2vector and oidvector: the elements, which spaces separate, as a JSON array
	Composite               // (…) as a JSON object of Fields
	Cast                    // a type with a cast to json, such as hstore: only the server can write it
)

// Type is the type of a column, element or field. A domain is represented by its base type.
type Type struct {
	Kind   Kind
	OID    uint32  // OID of the type; for a domain, of its base type
	Elem   *Type   // element type of an Array or a Vector
	Delim  byte    // delimiter between the elements of an Array: a comma, except for box
	Fields []Field // fields of a Composite, without dropped fields
	Hstore bool    // whether the type is hstore: a Cast whose input function does not read the JSON that its cast writes
}

// Field is one attribute of a composite type.
type Field struct {
	Name string
	Type Type
}

// NeedsServer reports whether the type is or contains a Cast. Only the server's to_json can write such a value.
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

// IsFlat reports whether the values of the type contain neither objects nor arrays.
func (t *Type) IsFlat() bool {
	switch t.Kind {
	case Text, Bool, Number, Timestamp, TimestampTZ:
		return true
	}
	return false
}
