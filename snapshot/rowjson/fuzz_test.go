package rowjson

import (
	"bytes"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"
)

var (
	typeText   = Type{OID: 25}
	typeNumber = Type{Kind: Number, OID: 1700}
	typePair   = Type{Kind: Composite, Fields: []Field{{"n", typeNumber}, {"ts", arrayOf(typeText, ',')}, {"b", Type{Kind: Bool}}, {"t", typeText}}}
)

func arrayOf(t Type, delim byte) Type { return Type{Kind: Array, Delim: delim, Elem: &t} }

// encodeOne encodes the text form of one value, and returns the value that a JSON decoder reads from the line. The test
// fails if the Encoder's output is not valid JSON on one line.
func encodeOne(t *testing.T, typ Type, text string) (any, error) {
	t.Helper()
	e := newEncoder(t, shapeOf(typ), true)
	line, err := e.AppendRow(nil, [][]byte{[]byte("1"), []byte(text)}, nil)
	if err != nil {
		if len(line) > 0 {
			t.Errorf("%q: bytes beside an error: %q", text, line)
		}
		return nil, err
	}
	if len(e.scratch) > 0 {
		t.Errorf("%q: %d bytes left on the scratch stack", text, len(e.scratch))
	}
	if !utf8.Valid(line) || bytes.ContainsAny(line, "\n\r") {
		t.Errorf("%q: not one line of UTF-8: %q", text, line)
	}
	var row struct{ V any }
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	if err := d.Decode(&row); err != nil {
		t.Errorf("%q: %v in %s", text, err, line)
	}
	return row.V, nil
}

// stringsOf splits fuzz input at its zero bytes. In the result, nil stands for NULL.
func stringsOf(input string) []any {
	var list []any
	for s := range strings.SplitSeq(input, "\x00") {
		if s == "NULL" {
			list = append(list, nil)
		} else {
			list = append(list, string(replaceInvalid([]byte(s))))
		}
	}
	return list
}

func FuzzArray(f *testing.F) {
	for _, s := range []string{
		`{}`, `{a}`, `{NULL,null,"NULL"}`, `{{1,2},{3,NULL}}`, `[2:3]={a,"b c"}`, `[0:0][1:1]={{"x\"y\\"}}`, `{"{a,\"b\"}","{}"}`, `{"(1,\"{a,b}\",t,\"x y\")"}`,
		`{(1,1),(0,0);(2,2),(1,1)}`, `{`, `{"`, `{"\`, `{a,}`, `{,}`, `{{a},b}`, `{a,{b}}`, `{{{{{{{1}}}}}}}`, `}`, `[`, `{}{}`, `{} `, `{{},{}}`, `{"a"b}`, `{a"b"}`, "a\x00NULL\x00\xe9", ``,
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, input string) {
		for _, typ := range []Type{arrayOf(typeText, ','), arrayOf(typeNumber, ';'), arrayOf(typePair, ','), arrayOf(arrayOf(typeText, ','), ','),
			{Kind: Vector, Elem: &typeNumber}} {
			_, _ = encodeOne(t, typ, input)
		}
		want := stringsOf(input)
		got, err := encodeOne(t, arrayOf(typeText, ','), arrayText(want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %q, %v", arrayText(want), got, err)
		}
		// Check an array whose elements are arrays themselves. In Postgres, such elements have a domain over an array type.
		nested := []any{arrayText(want), nil, arrayText(want)}
		got, err = encodeOne(t, arrayOf(arrayOf(typeText, ','), ','), "[-1:1]="+arrayText(nested))
		if err != nil || !reflect.DeepEqual(got, []any{want, nil, want}) {
			t.Errorf("%s: got %q, %v", arrayText(nested), got, err)
		}
	})
}

// arrayText writes an array as array_out does, except that it quotes every element other than NULL.
func arrayText(list []any) string {
	var elems []string
	for _, v := range list {
		if v == nil {
			elems = append(elems, "NULL")
		} else {
			elems = append(elems, `"`+strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(v.(string))+`"`)
		}
	}
	return "{" + strings.Join(elems, ",") + "}"
}

func FuzzComposite(f *testing.F) {
	for _, s := range []string{
		`()`, `(,,,)`, `(1,"{a,""b c""}",t,"x ""y"" \\ z")`, `(1,{a},f,"")`, `(NaN,"{""a\\""b""}",t,"(a,b)")`, `(1,,,`, `(`, `)`, `(1,2`, `("`, `("\`, `(\`, `(1,{},t,a)b`, `(1,,,,)`, `(a"b"c,,,)`,
		`(1,,x,)`, `(1,{,t,)`, "a\x00NULL\x00\xe9\x00b",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, input string) {
		for _, typ := range []Type{typePair, {Kind: Composite}, {Kind: Composite, Fields: []Field{{"one", typeText}}}, {Kind: Composite, Fields: []Field{{"deep", typePair}}}} {
			_, _ = encodeOne(t, typ, input)
		}
		list := stringsOf(input)
		inner, outer := Type{Kind: Composite}, Type{Kind: Composite}
		want := map[string]any{}
		var fields []string
		for i, v := range list {
			name := fmt.Sprintf("f\n%d", i)
			inner.Fields = append(inner.Fields, Field{name, typeText})
			want[name] = v
			if v == nil {
				fields = append(fields, "")
			} else {
				fields = append(fields, quoteField(v.(string)))
			}
		}
		text := "(" + strings.Join(fields, ",") + ")"
		if got, err := encodeOne(t, inner, text); err != nil || !reflect.DeepEqual(got, any(want)) {
			t.Errorf("%s: got %q, %v", text, got, err)
		}
		if _, err := encodeOne(t, Type{Kind: Composite, Fields: inner.Fields[1:]}, text); err == nil {
			t.Errorf("%s: read as a composite of another number of fields", text)
		}
		outer.Fields = []Field{{"a", inner}, {"b", arrayOf(inner, ',')}, {"c", typeText}}
		text = "(" + quoteField(text) + "," + quoteField(arrayText([]any{text, nil})) + ",)"
		if got, err := encodeOne(t, outer, text); err != nil || !reflect.DeepEqual(got, any(map[string]any{"a": want, "b": []any{want, nil}, "c": nil})) {
			t.Errorf("%s: got %q, %v", text, got, err)
		}
	})
}

func quoteField(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `""`).Replace(s) + `"`
}

// escapeJSON escapes s as Postgres' escape_json does, one byte at a time. appendString must return the same.
func escapeJSON(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, c := range []byte(s) {
		switch {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c == '\b':
			b.WriteString(`\b`)
		case c == '\f':
			b.WriteString(`\f`)
		case c == '\n':
			b.WriteString(`\n`)
		case c == '\r':
			b.WriteString(`\r`)
		case c == '\t':
			b.WriteString(`\t`)
		case c < ' ':
			fmt.Fprintf(&b, `\u%04x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

func FuzzString(f *testing.F) {
	for c := range 256 {
		f.Add(strings.Repeat("x", c%9) + string([]byte{byte(c)}) + "yz")
	}
	f.Add("12345678\"1234567\\\x80\xff\x1f\x20\x21\x5b\x5d\x7f")
	f.Fuzz(func(t *testing.T, s string) {
		if got := string(appendString(nil, []byte(s))); got != escapeJSON(s) {
			t.Errorf("%q: got %s, want %s", s, got, escapeJSON(s))
		}
		var back string
		if err := json.Unmarshal(appendString(nil, replaceInvalid([]byte(s))), &back); err != nil || back != string(replaceInvalid([]byte(s))) {
			t.Errorf("%q: comes back as %q, %v", s, back, err)
		}
		text, err := AppendUnescaped(nil, appendString(nil, []byte(s)))
		if zero := strings.Contains(s, "\x00"); zero != (err != nil) || !zero && string(text) != s {
			t.Errorf("%q: unescaped to %q, %v", s, text, err)
		}
		if utf8.ValidString(s) && string(replaceInvalid([]byte(s))) != s {
			t.Errorf("%q: repaired without need", s)
		}
		// For each of these kinds, the Encoder encodes the text as valid JSON or refuses it.
		for _, k := range []Kind{Text, Bool, Number, Timestamp, TimestampTZ} {
			_, _ = encodeOne(t, Type{Kind: k}, s)
		}
		if json.Valid([]byte(s)) {
			_, _ = encodeOne(t, Type{Kind: JSON}, s)
		}
		if n := json.Number(s); validNumber([]byte(s)) != (json.Valid([]byte(s)) && s == strings.TrimSpace(s) && s != "" && (s[0] == '-' || s[0]-'0' <= 9)) {
			t.Errorf("validNumber(%q) is wrong", n)
		}
	})
}

func FuzzField(f *testing.F) {
	f.Add(`a"\`, ` {"a": ["}", {"b":",\""}] }`, `{"id":1,"t":"x","j":[1],"n":null}`)
	f.Add(``, `"\\"`, `{"id":1,"t":"\`)
	f.Add(``, `[]`, `{"id":1,"t":`)
	f.Fuzz(func(t *testing.T, text, js, line string) {
		s := &Shape{Key: []int{0}, Columns: []Column{{Name: "id", Type: typeNumber}, {Name: "t", Type: typeText}, {Name: "j", Type: Type{Kind: JSON}}, {Name: "n", Type: typeText}}}
		e := newEncoder(t, s, false)
		for i := -1; i <= len(s.Columns); i++ {
			if v, ok := e.Field([]byte(line), i); ok && json.Valid([]byte(line)) && !json.Valid(v) {
				t.Errorf("field %d of %s: %s", i, line, v)
			}
		}
		if !json.Valid([]byte(js)) {
			return
		}
		row := [][]byte{[]byte("12"), []byte(text), []byte(js), nil}
		made, err := e.AppendRow(nil, row, nil)
		if err != nil {
			t.Fatal(err)
		}
		for i, want := range []string{"12", escapeJSON(text), string(appendJSON(nil, []byte(js))), "null"} {
			if got, ok := e.Field(made, i); !ok || string(got) != want {
				t.Errorf("field %d of %s: %s, %v", i, made, got, ok)
			}
		}
		row[3] = []byte(text + js)
		made, err = e.AppendRow(made[:0], row, nil)
		want, ok := e.Field(made, 3)
		if got, found := e.LastField(made); err != nil || !ok || !found || !bytes.Equal(got, want) {
			t.Errorf("the last field of %s: %s, %v, want %s", made, got, found, want)
		}
		for i := range row {
			row[i] = Unchanged
		}
		if again, err := e.AppendRow(nil, row, made); err != nil || !bytes.Equal(again, made) {
			t.Errorf("unchanged: %s, %v, want %s", again, err, made)
		}
	})
}
