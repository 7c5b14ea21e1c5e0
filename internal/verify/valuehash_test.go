package verify

import (
	"bytes"
	"encoding/json"
	"hash/maphash"
	"regexp"
	"testing"

	"capture/internal/statefile"
	"capture/snapshot/rowjson"
)

// unstorable matches escapes that can stand for a character that Postgres cannot store: NUL, or half of a surrogate pair. A
// string with such a character is hashed in its escaped form, so its hash depends on the escapes.
var unstorable = regexp.MustCompile(`(?i)\\u(0000|d[89a-f])`)

// FuzzValueHash checks that the hash of a row does not depend on white space, escapes or the order of members.
func FuzzValueHash(f *testing.F) {
	for _, seed := range []string{`{}`, `{"n":1.50,"t":"a\u0041\/","at":"2025-06-17 16:58","a":[1, 2,[3]],"c":{"x":1}}`, `{"n":-0.0e-7,"b":[],"b":{"a":null,"a":true}}`,
		`{"n":1e400,"at":1750179480,"a":{"x":[{}]},"c":[1],"t":5}`, `{"":{"":{"":"\\\""}}}`} {
		f.Add([]byte(seed))
	}
	timestamp, number := rowjson.Type{Kind: rowjson.Timestamp, OID: 1114}, rowjson.Type{Kind: rowjson.Number, OID: 1700}
	shape := &rowjson.Shape{Columns: []rowjson.Column{{Name: "n", Type: number}, {Name: "at", Type: timestamp}, {Name: "t"},
		{Name: "a", Type: rowjson.Type{Kind: rowjson.Array, Elem: &number}},
		{Name: "c", Type: rowjson.Type{Kind: rowjson.Composite, Fields: []rowjson.Field{{Name: "x", Type: timestamp}}}}, {Name: "j", Type: rowjson.Type{Kind: rowjson.JSON}}}}
	seed := maphash.MakeSeed()
	f.Fuzz(func(t *testing.T, text []byte) {
		row, err := statefile.ParseRow(text)
		if err != nil {
			return
		}
		h := newValueHasher(seed, shape)
		hash := h.hashRow(row.Text)
		var indented bytes.Buffer
		if json.Indent(&indented, row.Text, " ", "\t") == nil && h.hashRow(indented.Bytes()[bytes.IndexByte(indented.Bytes(), '{'):]) != hash {
			t.Fatalf("%q has another hash when it is indented", row.Text)
		}
		if unstorable.Match(text) {
			return
		}
		decoder := json.NewDecoder(bytes.NewReader(row.Text))
		decoder.UseNumber()
		var value map[string]any
		if decoder.Decode(&value) != nil {
			return
		}
		again, err := json.Marshal(value)
		if err == nil && h.hashRow(again) != hash {
			t.Fatalf("%q has another hash than %q", again, row.Text)
		}
	})
}

func TestCanonicalNumber(t *testing.T) {
	for _, same := range [][]string{{"1", "1.0", "10e-1", "0.1E1", "1.000e+0", "01"}, {"0", "-0", "0.000", "0e7"}, {"-12.5", "-125e-1", "-0.125e2"}, {"1e400", "10e399"},
		{"12345678901234567890", "12345678901234567890.0"}} {
		want, _ := canonicalNumber(nil, []byte(same[0]))
		for _, text := range same {
			if got, ok := canonicalNumber(nil, []byte(text)); !ok || !bytes.Equal(got, want) {
				t.Errorf("%s is %s, want %s", text, got, want)
			}
		}
	}
	if a, _ := canonicalNumber(nil, []byte("12345678901234567890")); string(a) == "1234567890123456789e0" {
		t.Error("a digit was lost")
	}
	for _, text := range []string{"NaN", "Infinity", "", "-", ".", "1e", "1x", "0x10", "1e99999999999999999999"} {
		if got, ok := canonicalNumber(nil, []byte(text)); ok {
			t.Errorf("%q is the number %s", text, got)
		}
	}
}
