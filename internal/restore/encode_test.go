package restore

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"capture/snapshot/rowjson"
)

// TestCopyStrings checks that the fast conversion of a JSON string to COPY's text format has the same result as the slow
// conversion.
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
		if !bytes.Contains(value, unicodeEscape) {
			if short := appendCopyString([]byte("x"), value); uncopied(short) != "x"+want {
				t.Fatalf("%s became %q for COPY", value, short)
			}
		}
		if again := escapeCopyText(long, 1); uncopied(again) != "x"+want {
			t.Fatalf("%s became %q for COPY, the long way", value, again)
		}
	}
	for _, bad := range []string{`"\u0000"`, `"a\ud800"`, `"\udc00b"`, `"\ud800\n"`, `"\ud800\u0041"`} {
		if got, err := rowjson.AppendUnescaped(nil, []byte(bad)); err == nil {
			t.Errorf("%s became %q", bad, got)
		}
	}
}

// uncopied returns the text that Postgres reads from a value in COPY's text format.
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
