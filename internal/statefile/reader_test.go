package statefile

import (
	"bytes"
	"encoding/json"
	"testing"
	"unicode/utf8"
)

// FuzzParseRow compares with encoding/json's opinion on what JSON is.
func FuzzParseRow(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, ` {"a" : [1, -0.5e+7, true, null, "\u00e9\ud83d\uddf3\n"], "b":{"c":{}} } `, `{"a":01}`, `{"a":"\x"}`, "{\"a\":\"\x01\"}",
		`{"a":1,}`, `{"a" 1}`, `{,}`, `{"a":[1,]}`, `{"a":-}`, `{"a":1.}`, `{"a":1e}`, `{"\u0061":tru}`, `{"a":"\u12"}`, `[]`, `{"a":1}x`, `{"a":"\ud800"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		row, err := ParseRow(text)
		valid := json.Valid(text) && utf8.Valid(text) && bytes.HasPrefix(bytes.TrimLeft(text, " \n\r\t"), []byte("{"))
		if err == nil && !valid {
			t.Fatalf("took %q", text)
		}
		if err != nil {
			// A name may hold what is valid JSON and no name of a column.
			if valid && !bytes.Contains(text, []byte(`\u`)) && bytes.Count(text, []byte("{"))+bytes.Count(text, []byte("[")) < maxDepth {
				t.Fatalf("refused %q: %v", text, err)
			}
			return
		}
		for _, m := range row.Members {
			if !json.Valid(m.Value) {
				t.Fatalf("the value %q of %q", m.Value, text)
			}
		}
	})
}
