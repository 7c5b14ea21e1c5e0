package restore

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
	"capture/internal/postgres"
	"capture/snapshot/rowjson"
	"capture/store/manifest"
)

// moneyOID is the OID of type money, whose text form depends on the setting lc_monetary.
const moneyOID = 790

// anyElement reports whether f is true for the type t, for the type of its elements, or for the type of one of its fields,
// at any depth.
func anyElement(t *rowjson.Type, f func(*rowjson.Type) bool) bool {
	return f(t) || t.Elem != nil && anyElement(t.Elem, f) ||
		slices.ContainsFunc(t.Fields, func(field rowjson.Field) bool { return anyElement(&field.Type, f) })
}

func isMoney(t *rowjson.Type) bool { return t.OID == moneyOID }

// isCast reports whether row_to_json converts values of the type with the type's own cast to json. The type's input function
// may be unable to read that JSON.
func isCast(t *rowjson.Type) bool { return t.Kind == rowjson.Cast && !t.Hstore }

// lossyTypes contains the types that may round or shorten a value without an error. It maps their OIDs (pg_type.dat) to
// their names. Types of numbers and times round if they have few bits or a modifier. Types of text cut off spaces at the
// end, and the type "name" cuts off everything beyond 63 bytes. A domain over a lossy type may have a modifier of its own.
var lossyTypes = map[uint32]string{
	700: "real", 701: "double precision", 1700: "numeric", 1083: "time without time zone", 1266: "time with time zone",
	1114: "timestamp without time zone", 1184: "timestamp with time zone", 1186: "interval",
	19: "name", 1042: "character", 1043: "character varying",
}

func isLossy(t *rowjson.Type) bool { return lossyTypes[t.OID] != "" }

func isNumber(t *rowjson.Type) bool { return t.Kind == rowjson.Number }

func isComposite(t *rowjson.Type) bool { return t.Kind == rowjson.Composite }

// firstUserOID is the lowest OID of a type that somebody has created (FirstNormalObjectId in Postgres' access/transam.h). Types
// with this OID or a higher OID may differ between databases although they have the same name.
const firstUserOID = 16384

// compareTypes compares the types in the manifest with those of the table. If a column's type in the table could change the
// file's values, compareTypes marks the column, so that its values are checked. If a column's two types are of different
// kinds, such as text and integer, compareTypes adds a note. If the table's type also contains numbers, compareTypes marks
// the column, so that the file's numbers are checked.
func (m *columnMap) compareTypes(manifest *manifest.Manifest) {
	for i := range m.targets {
		t := &m.targets[i]
		t.checked = !t.generated && (anyElement(&t.column.Type, isMoney) || anyElement(&t.column.Type, isCast))
		if manifest == nil || t.generated {
			continue
		}
		k := slices.IndexFunc(manifest.Columns, func(c rowjson.Column) bool { return c.Name == m.names[i] })
		if k < 0 {
			continue
		}
		was, is := manifest.Columns[k].TypeName, t.column.TypeName
		switch from, to := bareTypeName(was), baseTypeName(t.column); {
		case was == is && t.column.TypeOID < firstUserOID:
		case was == is:
			t.checked = t.checked || anyElement(&t.column.Type, isLossy)
		case from == to, from == bareTypeName(is), mayRound[from+" to "+to]:
			// The names from and bareTypeName(is) are equal if the type is, for example, a domain of the same name in another
			// schema.
			t.checked = true
		case alike[from] != "" && alike[from] == alike[to]:
			t.checked = t.checked || to == "name" || t.column.TypeOID >= firstUserOID || typeModifier.MatchString(is)
		default:
			t.numbersChecked = anyElement(&t.column.Type, isNumber)
			m.notes = append(m.notes, fmt.Sprintf("column %s is %s, and was %s in the file: capture verify compares what both print",
				postgres.QuoteIdentifier(m.names[i]), is, foreign.Text(was)))
		}
	}
}

// baseTypeName returns the name of the column's type without modifier and schema. For a domain over one of lossyTypes, and
// for an array of such a domain, it uses the name of the domain's base type instead of the domain's name.
func baseTypeName(c *rowjson.Column) string {
	switch t := &c.Type; {
	case c.TypeOID < firstUserOID:
	case isLossy(t):
		return lossyTypes[t.OID]
	case t.Elem != nil && isLossy(t.Elem):
		return lossyTypes[t.Elem.OID] + "[]"
	}
	return bareTypeName(c.TypeName)
}

// mayRound contains pairs of types. A conversion from the first to the second may round values.
var mayRound = map[string]bool{"double precision to real": true, "numeric to real": true, "numeric to double precision": true}

// alike maps each type to a group. The types of a group print a value in the same way.
var alike = map[string]string{
	"smallint": "number", "integer": "number", "bigint": "number", "numeric": "number",
	"text": "text", "character varying": "text", "citext": "text", "name": "text",
}

var typeModifier = regexp.MustCompile(`\([^)]*\)`)

// bareTypeName returns the name of a type without modifier and schema.
func bareTypeName(name string) string {
	name = typeModifier.ReplaceAllString(name, "")
	if i := strings.LastIndexByte(name, '.'); i >= 0 {
		name = name[i+1:]
	}
	return name
}

// isChecked reports whether findChanged must check a value of the column. If only the column's numbers are checked,
// isChecked reports false for a text, and for a value whose form differs from what the table's type prints. Such a value
// would look changed even if it is not.
func (t *target) isChecked(value []byte) bool {
	if t.checked || !t.numbersChecked || value[0] == '"' {
		return t.checked
	}
	var decoded any
	decoder := json.NewDecoder(bytes.NewReader(value))
	decoder.UseNumber()
	err := decoder.Decode(&decoded)
	return err != nil || isFormOf(&t.column.Type, decoded)
}

// isFormOf reports whether value has JSON numbers, strings, arrays and objects in the same places as the JSON that
// row_to_json returns for the type t.
func isFormOf(t *rowjson.Type, value any) bool {
	if value == nil || t.Kind == rowjson.JSON || t.Kind == rowjson.Cast {
		return true
	}
	switch v := value.(type) {
	case bool:
		return t.Kind == rowjson.Bool
	case json.Number:
		return isNumber(t)
	case string:
		return t.Kind == rowjson.Text || t.Kind == rowjson.Timestamp || t.Kind == rowjson.TimestampTZ ||
			isNumber(t) && (v == "NaN" || v == "Infinity" || v == "-Infinity")
	case []any:
		elem := t
		if t.Elem != nil {
			elem = t.Elem // otherwise v is an inner array of a multidimensional array, and t is already the type of the elements
		}
		return !slices.ContainsFunc(v, func(value any) bool { return !isFormOf(elem, value) })
	case map[string]any:
		return isComposite(t) && !slices.ContainsFunc(t.Fields, func(f rowjson.Field) bool { return !isFormOf(&f.Type, v[f.Name]) })
	}
	return false
}

// checkedValue is a value that findChanged checks.
type checkedValue struct {
	row        int // number of the row in the batch
	text, json string
}

// findChanged finds a value of a batch that the table's type would change. It returns the number of the value's row in the
// batch and the index of its column, or false if there is no such value. It ignores values that the type cannot read at all,
// because COPY refuses them.
func (m *columnMap) findChanged(ctx context.Context, tx pgx.Tx, checked map[int][]checkedValue) (row, column int, found bool, err error) {
	for column, values := range checked {
		texts, jsons := make([]string, len(values)), make([]string, len(values))
		for i, v := range values {
			texts[i], jsons[i] = v.text, v.json
		}
		typ := m.table.ColumnType(m.names[column])
		printed, value := "pg_catalog.to_json(CAST(u.t AS "+typ+"))::pg_catalog.jsonb", "u.j::pg_catalog.jsonb"
		// A field of a composite value becomes NULL in the table if the file lacks the field. Therefore, compare both values
		// without their NULLs.
		if anyElement(&m.targets[column].column.Type, isComposite) {
			printed, value = "pg_catalog.jsonb_strip_nulls("+printed+")", "pg_catalog.jsonb_strip_nulls("+value+")"
		}
		changed := printed + " OPERATOR(pg_catalog.<>) " + value
		// A plain number means the same in every locale, so compare it as a number.
		if m.targets[column].column.Type.OID == moneyOID {
			changed = "CASE WHEN u.t OPERATOR(pg_catalog.~) '^-?[0-9]+([.][0-9]{1,2})?$' THEN CAST(u.t AS " + typ +
				")::pg_catalog.numeric OPERATOR(pg_catalog.<>) u.t::pg_catalog.numeric ELSE " + changed + " END"
		}
		var at int
		err := withSavepoint(ctx, tx, func() error {
			return tx.QueryRow(ctx, "SELECT COALESCE(pg_catalog.min(u.i), 0) FROM ROWS FROM (pg_catalog.unnest($1::pg_catalog.text[]), pg_catalog.unnest($2::pg_catalog.text[])) WITH ORDINALITY u(t, j, i) WHERE "+changed,
				texts, jsons).Scan(&at)
		})
		switch {
		case err != nil && !isRefusal(err):
			return 0, 0, false, explain("check values", err)
		case err == nil && at > 0:
			return values[at-1].row, column, true, nil
		}
	}
	return 0, 0, false, nil
}

// explainChanged returns the error for a value that the type of the table's column would change. place names the line
// and the key of the row with the value.
func (m *columnMap) explainChanged(place string, column int) error {
	c := m.targets[column].column
	return fmt.Errorf("%s: column %s (%s) does not keep the value: it would change%s", place, postgres.QuoteIdentifier(c.Name), c.TypeName, typeHint(&c.Type))
}

// typeHint returns what may be wrong with a value of a type, with a semicolon before it, or "".
func typeHint(t *rowjson.Type) string {
	switch {
	case anyElement(t, isMoney):
		return "; the file may have been written under another lc_monetary than this database's: connect with PGOPTIONS='-c lc_monetary=…', or ALTER DATABASE … SET lc_monetary"
	case anyElement(t, isCast):
		return "; the type is written by its own cast to json, and its input function must read that"
	}
	return ""
}
