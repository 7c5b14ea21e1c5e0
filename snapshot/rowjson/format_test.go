package rowjson

import (
	"crypto/sha256"
	"fmt"
	"testing"
)

// TestFormatVersion fails if lines or keys have changed. In this case, raise FormatVersion and replace the digest below.
// Files of the earlier version have other lines for the same rows, or another order of the rows.
func TestFormatVersion(t *testing.T) {
	const version, want = 1, "36483b46f898d2386a57b514fb5ad99c"
	elem := func(t Type) *Type { return &t }
	columns := []struct {
		t     Type
		texts []string
	}{
		{Type{OID: 23, Kind: Number}, []string{"-2147483648", "0", "7"}},
		{Type{OID: 20, Kind: Number}, []string{"-9223372036854775808", "12", "9223372036854775807"}},
		{Type{OID: 1700, Kind: Number}, []string{"-1.50", "0.000", "NaN", "1e10", "123456789012345678901234567890.5", "Infinity"}},
		{Type{OID: 701, Kind: Number}, []string{"-0", "1e-300", "Infinity", "0.1"}},
		{Type{OID: 16, Kind: Bool}, []string{"t", "f"}},
		{Type{OID: 25, Kind: Text}, []string{"", "a\"b\\c", "line\nbreak\ttab\r\b\f\x01\x7f", "é🗳 ", "</script>"}},
		{Type{OID: 1082, Kind: Text}, []string{"2026-11-23", "0044-03-15 BC", "infinity", "-infinity", "12026-01-01"}},
		{Type{OID: 1114, Kind: Timestamp}, []string{"2026-11-23 16:00:00", "2026-11-23 16:00:00.123456", "infinity", "0044-03-15 00:00:00 BC"}},
		{Type{OID: 1184, Kind: TimestampTZ}, []string{"2026-11-23 16:00:00+00", "2026-11-23 16:00:00.5+00", "-infinity"}},
		{Type{OID: 114, Kind: JSON}, []string{`{"a" : [1,  2.50],"a":null}`, "[\n1\n]", `"x"`}},
		{Type{Kind: Array, Elem: elem(Type{OID: 25}), Delim: ','}, []string{`{a,"b c",NULL,"NULL",""}`, "{}", "{{a,b},{c,d}}", "[0:1]={x,y}"}},
		{Type{Kind: Array, Elem: elem(Type{OID: 23, Kind: Number}), Delim: ','}, []string{"{1,NULL,3}"}},
		{Type{Kind: Vector, Elem: elem(Type{OID: 21, Kind: Number})}, []string{"1 2 3", ""}},
		{Type{Kind: Composite, Fields: []Field{{"n", Type{OID: 23, Kind: Number}}, {`a "b"`, Type{OID: 25}}}}, []string{`(1,"x ""y""")`, "(,)", `(2,"")`}},
	}
	h := sha256.New()
	for i, c := range columns {
		shape := &Shape{Table: "t", Columns: []Column{{Name: "key", Type: c.t}, {Name: `a "name"`, Type: c.t}, {Name: "null", Type: c.t}}, Key: []int{0}}
		e, err := NewEncoder(shape, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range c.texts {
			values := [][]byte{[]byte(text), []byte(text), nil}
			key, err := e.AppendKey(nil, values)
			if err != nil {
				t.Fatalf("column %d, %q: %v", i, text, err)
			}
			line, err := e.AppendCopiedRow(nil, values)
			if err != nil {
				t.Fatalf("column %d, %q: %v", i, text, err)
			}
			fmt.Fprintf(h, "%x %s\n", key, line)
		}
	}
	if got := fmt.Sprintf("%x", h.Sum(nil)[:16]); got != want || FormatVersion != version {
		t.Errorf("the lines and keys of version %d have the digest %s; version %d had %s", FormatVersion, got, version, want)
	}
}
