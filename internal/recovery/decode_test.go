package recovery

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"
	"unicode/utf8"

	"capture/snapshot/rowjson"
)

// FuzzMembers holds the parser to encoding/json's word on what JSON is.
func FuzzMembers(f *testing.F) {
	for _, seed := range []string{`{}`, `{"a":1}`, ` {"a" : [1, -0.5e+7, true, null, "\u00e9\ud83d\uddf3\n"], "b":{"c":{}} } `, `{"a":01}`, `{"a":"\x"}`, "{\"a\":\"\x01\"}",
		`{"a":1,}`, `{"a" 1}`, `{,}`, `{"a":[1,]}`, `{"a":-}`, `{"a":1.}`, `{"a":1e}`, `{"\u0061":tru}`, `{"a":"\u12"}`, `[]`, `{"a":1}x`, `{"a":"\ud800"}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		ms, err := members(nil, text)
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
		for _, m := range ms {
			if !json.Valid(m.value) {
				t.Fatalf("the value %q of %q", m.value, text)
			}
		}
		line := appendCompact(nil, text)
		if !json.Valid(line) || !bytes.Equal(line, appendCompact(nil, line)) {
			t.Fatalf("%q became %q", text, line)
		}
	})
}

// The short way from a JSON string to COPY's text format gives what the long way gives.
func TestCopyStrings(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	parts := []string{`a`, `é`, `🗳`, `\n`, `\r`, `\t`, `\b`, `\f`, `\\`, `\"`, `\/`, `\u000a`, `\u0009`, `\u005c`, `\u0022`, `\u00e9`, `\ud83d\uddf3`, `\u2028`, `N`, ` `, `long and plain `}
	for range 20_000 {
		value := []byte{'"'}
		for range r.IntN(8) {
			value = append(value, parts[r.IntN(len(parts))]...)
		}
		value = append(value, '"')
		var want string
		if err := json.Unmarshal(value, &want); err != nil {
			t.Fatal(err)
		}
		long, err := rowjson.AppendUnescaped([]byte("x"), value)
		if err != nil || string(long) != "x"+want {
			t.Fatalf("%s became %q, %v", value, long, err)
		}
		short, err := appendCopyString([]byte("x"), value)
		if err != nil || uncopied(short) != "x"+want {
			t.Fatalf("%s became %q for COPY, %v", value, short, err)
		}
		if again := escapeFrom(long, 1); uncopied(again) != "x"+want {
			t.Fatalf("%s became %q for COPY, the long way", value, again)
		}
	}
	for _, bad := range []string{`"\u0000"`, `"a\ud800"`, `"\udc00b"`, `"\ud800\n"`, `"\ud800\u0041"`} {
		if got, err := appendCopyString(nil, []byte(bad)); err == nil {
			t.Errorf("%s became %q", bad, got)
		}
	}
}

// uncopied reads COPY's text format as Postgres does.
func uncopied(text []byte) string {
	back := map[byte]byte{'n': '\n', 'r': '\r', 't': '\t', 'b': '\b', 'f': '\f', '\\': '\\'}
	var out []byte
	for i := 0; i < len(text); i++ {
		c := text[i]
		if c == '\n' || c == '\r' || c == '\t' {
			return "a raw separator"
		}
		if c == '\\' {
			i++
			c = back[text[i]]
		}
		out = append(out, c)
	}
	return string(out)
}
