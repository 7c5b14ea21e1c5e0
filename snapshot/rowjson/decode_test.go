package rowjson

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"
	"time"
)

// TestAppendTextInvertsEncoder checks for random types that AppendText returns the text that the Encoder has encoded.
func TestAppendTextInvertsEncoder(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	for range 5000 {
		typ := randomType(r, 3)
		text := randomText(r, &typ)
		e := newEncoder(t, shapeOf(typ), false)
		line, err := e.AppendRow(nil, [][]byte{[]byte("1"), []byte(text)}, nil)
		if err != nil {
			t.Fatalf("encode %q: %v", text, err)
		}
		value, ok := e.Field(line, 1)
		if !ok {
			t.Fatalf("no field in %s", line)
		}
		back, err := AppendText([]byte("before"), &typ, value)
		if err != nil || string(back) != "before"+text {
			t.Fatalf("%s\nwas  %q\ngave %q, %v", value, text, back, err)
		}
	}
}

// randomType returns a random type. Types within it are nested up to the given depth.
func randomType(r *rand.Rand, depth int) Type {
	kinds := []Kind{Text, Bool, Number, Timestamp, TimestampTZ, JSON, Vector, Array, Composite}
	if depth == 0 {
		kinds = kinds[:6]
	}
	t := Type{Kind: kinds[r.IntN(len(kinds))]}
	switch t.Kind {
	case Vector:
		t.Elem = &Type{Kind: Number}
	case Array:
		elem := randomType(r, depth-1)
		t.Elem, t.Delim = &elem, ",;"[r.IntN(2)]
	case Composite:
		for i := range r.IntN(4) {
			t.Fields = append(t.Fields, Field{fmt.Sprintf("f %d\"\\", i), randomType(r, depth-1)})
		}
	}
	return t
}

// randomText returns a value as the type's output function prints it.
func randomText(r *rand.Rand, t *Type) string {
	draw := func(texts ...string) string { return texts[r.IntN(len(texts))] }
	switch t.Kind {
	case Text:
		var b strings.Builder
		for range r.IntN(5) {
			b.WriteString(draw("a", "é", "🗳", " ", ",", ";", `"`, `\`, "{", "}", "(", ")", "\n", "\r", "\t", "\v", "\x01", "NULL", "null", "T1", "+00:00", `\u0041`))
		}
		return b.String()
	case Bool:
		return draw("t", "f")
	case Number:
		return draw("0", "-1.50", "12345678901234567890.000", "1e+20", "NaN", "Infinity", "-Infinity")
	case Timestamp:
		return draw("2025-06-17 16:58:00", "2025-06-17 16:58:00.123456", "0044-03-15 12:00:00 BC", "infinity", "-infinity")
	case TimestampTZ:
		return draw("2025-06-17 16:58:00+00", "294276-12-31 23:59:59.999999+00", "0044-03-15 12:00:00.5+00 BC", "infinity")
	case JSON:
		return draw(`{}`, `[ 1 , "x\"y" ]`, `{"a" : {"b": "}\\"}, "a": null}`, `1e400`, `"\ud800 \u0000"`, `true`)
	case Vector:
		return draw("", "1", "1 -2 3")
	case Array:
		return randomArray(r, t)
	}
	var fields []string
	for i := range t.Fields {
		field := ""
		if r.IntN(4) > 0 {
			field = randomText(r, &t.Fields[i].Type)
			if field == "" || regexp.MustCompile(`["\\(),\s\v]`).MatchString(field) {
				field = quoteField(field)
			}
		}
		fields = append(fields, field)
	}
	return "(" + strings.Join(fields, ",") + ")"
}

func randomArray(r *rand.Rand, t *Type) string {
	dimensions := []int{r.IntN(3), 1 + r.IntN(2), 1 + r.IntN(2)}[:1+r.IntN(3)]
	if k := t.Elem.Kind; k == JSON || k == Array || k == Vector || dimensions[0] == 0 {
		dimensions = dimensions[:1] // appendArrayText allows only one dimension here; an empty array has no inner dimensions
	}
	special := regexp.MustCompile(`["\\{}\s\v` + string(t.Delim) + `]`)
	var write func(dimensions []int) string
	write = func(dimensions []int) string {
		if len(dimensions) == 0 {
			if r.IntN(4) == 0 {
				return "NULL"
			}
			elem := randomText(r, t.Elem)
			if elem == "" || strings.EqualFold(elem, "null") || special.MatchString(elem) {
				elem = `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(elem) + `"`
			}
			return elem
		}
		var list []string
		for range dimensions[0] {
			list = append(list, write(dimensions[1:]))
		}
		return "{" + strings.Join(list, string(t.Delim)) + "}"
	}
	return write(dimensions)
}

// FuzzAppendText checks that AppendText does not panic on any JSON value, for types of each kind. If the Encoder accepts the
// resulting text, it must encode this text as valid JSON.
func FuzzAppendText(f *testing.F) {
	for _, s := range []string{`1`, `"x"`, `true`, `[]`, `{}`, ` [ 1 , [ null ] , "a\"" ] `, `{"n":1, "ts" : ["a","\u00e9"] ,"b":true,"t":null}`,
		`{"a":"1","b c":null,"":{"x":[2]}}`, `"2025-06-17T16:58:00+00:00"`, `{"\ud800":"\u0000"}`, `[[],[[]]]`} {
		f.Add([]byte(s))
	}
	types := []Type{{Kind: Text}, {Kind: Bool}, {Kind: Number}, {Kind: Timestamp}, {Kind: TimestampTZ}, {Kind: JSON}, {Kind: Cast}, typePair,
		{Kind: Vector, Elem: &typeNumber}, arrayOf(typeText, ','), arrayOf(typePair, ';'), arrayOf(arrayOf(typeNumber, ','), ','), {Kind: Composite}}
	f.Fuzz(func(t *testing.T, value []byte) {
		value = []byte(strings.Trim(string(value), space))
		if !json.Valid(value) || string(value) == "null" {
			return
		}
		for i := range types {
			text, err := AppendText(nil, &types[i], value)
			if err == nil && types[i].Kind != Cast {
				_, _ = encodeOne(t, types[i], string(text))
			}
		}
	})
}
