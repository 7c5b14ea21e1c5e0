package rowjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

func textArray() Type {
	return Type{Kind: Array, OID: 1009, Delim: ',', Elem: &Type{Kind: Text, OID: 25}}
}

// votesShape returns the shape of the application's table.
func votesShape() *Shape {
	return &Shape{
		Schema: "public", Table: "votes", Key: []int{0},
		Columns: []Column{
			{Name: "vote_id", TypeName: "integer", Type: Type{Kind: Number, OID: 23}},
			{Name: "user_query", TypeName: "text", Type: Type{OID: 25}},
			{Name: "bot_response", TypeName: "text", Type: Type{OID: 25}},
			{Name: "evaluation_json", TypeName: "jsonb", Type: Type{Kind: JSON, OID: 3802}},
			{Name: "feedback_tags", TypeName: "text[]", Type: textArray()},
			{Name: "comment", TypeName: "text", Type: Type{OID: 25}},
			{Name: "citations", TypeName: "jsonb", Type: Type{Kind: JSON, OID: 3802}},
			{Name: "timestamp", TypeName: "timestamp without time zone", Type: Type{Kind: Timestamp, OID: 1114}},
		},
	}
}

func newEncoder(tb testing.TB, s *Shape, lossy bool) *Encoder {
	tb.Helper()
	e, err := NewEncoder(s, lossy)
	if err != nil {
		tb.Fatal(err)
	}
	return e
}

// shapeOf returns a shape with the key id and a column v of type t.
func shapeOf(t Type) *Shape {
	return &Shape{Table: "t", Key: []int{0}, Columns: []Column{
		{Name: "id", TypeName: "integer", Type: Type{Kind: Number, OID: 23}},
		{Name: "v", TypeName: "its type", Type: t},
	}}
}

// values returns a row of the given texts. The text "NULL" stands for NULL.
func values(texts ...string) [][]byte {
	row := make([][]byte, len(texts))
	for i, s := range texts {
		if s != "NULL" {
			row[i] = []byte(s)
		}
	}
	return row
}

func TestAppendRowOfVotes(t *testing.T) {
	e := newEncoder(t, votesShape(), false)
	row := values("1", "How do I \"quote\"?\n", "a\\b\x01\x7f\u2028é/", `{"a": 1.50, "b": [1, 2]}`, `{"a b",NULL,"c\"d",e}`, "NULL", `[]`, "2025-06-17 16:58:00.123")
	want := `{"vote_id":1,"user_query":"How do I \"quote\"?\n","bot_response":"a\\b\u0001` + "\x7f\u2028é/" +
		`","evaluation_json":{"a": 1.50, "b": [1, 2]},"feedback_tags":["a b",null,"c\"d","e"],"comment":null,` +
		`"citations":[],"timestamp":"2025-06-17T16:58:00.123"}`
	line, err := e.AppendRow([]byte("before"), row, nil)
	if err != nil {
		t.Fatal(err)
	}
	line = line[len("before"):]
	if string(line) != want {
		t.Errorf("got  %s\nwant %s", line, want)
	}

	row[1] = []byte("new")
	row[2], row[3], row[4], row[7] = Unchanged, Unchanged, Unchanged, Unchanged
	again, err := e.AppendRow(nil, row, line)
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(want, `How do I \"quote\"?\n`, "new", 1); string(again) != want {
		t.Errorf("with unchanged values\ngot  %s\nwant %s", again, want)
	}
}

// TestRowEndsWithoutSpaces checks that a line has no spaces before its last brace, even if a value of type json ends with
// spaces or newlines. In a file, spaces before the brace are padding. Other white space in the value stays.
func TestRowEndsWithoutSpaces(t *testing.T) {
	e := newEncoder(t, shapeOf(Type{Kind: JSON, OID: 114}), false)
	for text, want := range map[string]string{
		"{\"a\": 1}\n":    `{"id":7,"v":{"a": 1}}`,
		" [1 ] \r\n ":     `{"id":7,"v": [1 ]}`,
		`"spaces  "`:      `{"id":7,"v":"spaces  "}`,
		"{\"a\": 1}\t\n ": "{\"id\":7,\"v\":{\"a\": 1}\t}",
	} {
		for _, appendRow := range []func() ([]byte, error){
			func() ([]byte, error) { return e.AppendRow(nil, values("7", text), nil) },
			func() ([]byte, error) { return e.AppendCopiedRow(nil, values("7", text)) },
			func() ([]byte, error) {
				return e.AppendRow(nil, [][]byte{[]byte("7"), Unchanged}, []byte(want))
			},
		} {
			if line, err := appendRow(); err != nil || string(line) != want {
				t.Errorf("%q: %q, not %q (%v)", text, line, want, err)
			}
		}
	}
}

func TestAppendRowRefuses(t *testing.T) {
	e := newEncoder(t, votesShape(), false)
	row := values("1", "q", "r", "{}", "{}", "c", "{}", "2025-06-17 16:58:00")
	for name, try := range map[string]func() ([]byte, error){
		"too few values": func() ([]byte, error) { return e.AppendRow([]byte("x"), row[:3], nil) },
		"unchanged without a line": func() ([]byte, error) {
			return e.AppendRow([]byte("x"), [][]byte{row[0], Unchanged, nil, nil, nil, nil, nil, nil}, nil)
		},
		"unchanged with another shape's line": func() ([]byte, error) {
			return e.AppendRow([]byte("x"), [][]byte{row[0], Unchanged, nil, nil, nil, nil, nil, nil}, []byte(`{"vote_id":1,"other":2}`))
		},
		"a bad array": func() ([]byte, error) {
			return e.AppendRow([]byte("x"), values("1", "q", "r", "{}", "{secret", "c", "{}", "2025-06-17 16:58:00"), nil)
		},
	} {
		dst, err := try()
		if err == nil || string(dst) != "x" {
			t.Errorf("%s: got %q, %v", name, dst, err)
		} else if strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: the error tells the value: %v", name, err)
		}
	}
}

// votesRow returns a row of about size bytes. Most of the row is an answer in Markdown.
func votesRow(size int) [][]byte {
	answer := strings.Repeat("Open **Settings**, then \"Billing\".\n\n- choose the plan – it's listed under *Plans*\n- confirm with your password\n\n", size/120+1)
	return values("123456", "How do I change the plan of my subscription?", answer[:size*2/3],
		`{"scores": {"accuracy": 0.92, "relevance": 0.87}, "model": "judge-2", "notes": "`+strings.Repeat("fine ", size/60)+`"}`,
		`{helpful,"well sourced"}`, "NULL", `[{"title": "Plans", "url": "https://example.com/plans"}]`, "2025-06-17 16:58:00.123456")
}

func BenchmarkAppendRow(b *testing.B) {
	for _, size := range []int{100, 2600} {
		row := votesRow(size)
		e := newEncoder(b, votesShape(), false)
		line, err := e.AppendRow(nil, row, nil)
		if err != nil || !json.Valid(line) {
			b.Fatal(err)
		}
		b.Run(fmt.Sprint(len(line)), func(b *testing.B) {
			b.SetBytes(int64(len(line)))
			b.ReportAllocs()
			for b.Loop() {
				line, _ = e.AppendRow(line[:0], row, nil)
			}
		})
	}
}

func BenchmarkAppendKey(b *testing.B) {
	e := newEncoder(b, votesShape(), false)
	row := votesRow(100)
	var key Key
	b.ReportAllocs()
	for b.Loop() {
		key, _ = e.AppendKey(key[:0], row)
	}
}

func TestKeysOfVotes(t *testing.T) {
	s := votesShape()
	e := newEncoder(t, s, false)
	var last Key
	for _, id := range []string{"-2147483648", "-1", "0", "1", "9", "10", "2147483647"} {
		row := votesRow(100)
		row[0] = []byte(id)
		key, err := e.AppendKey(nil, row)
		if err != nil {
			t.Fatal(err)
		}
		if len(key) != 8 || last != nil && bytes.Compare(last, key) >= 0 || s.KeyString(key) != id {
			t.Errorf("key of %s: %x, %s", id, key, s.KeyString(key))
		}
		last = key
	}
}

func TestEncodingAllocatesNothing(t *testing.T) {
	row := votesRow(2600)
	pair := Type{Kind: Composite, Fields: []Field{{"a", textArray()}, {"b", Type{OID: 25}}}}
	odd := &Shape{Table: "t", Key: []int{0, 1, 2}, Columns: []Column{
		{Name: "a", Type: Type{Kind: Number, OID: 1700}}, {Name: "b", Type: Type{Kind: Timestamp, OID: 1114}}, {Name: "c", Type: Type{OID: 25}},
		{Name: "d", Type: Type{Kind: Array, Delim: ',', Elem: &pair}}, {Name: "e", Type: Type{Kind: TimestampTZ}}, {Name: "f", Type: Type{Kind: Bool}},
	}}
	oddRow := values("-1.50", "0044-03-15 00:00:00 BC", "é\n", `{"(\"{\"\"a b\"\",NULL}\",\"x\\\\\"\"y\")",NULL}`, "2025-06-17 16:58:00.1+00 BC", "t")
	for _, c := range []struct {
		e   *Encoder
		row [][]byte
	}{{newEncoder(t, votesShape(), true), row}, {newEncoder(t, odd, true), oddRow}} {
		var line, again []byte
		var key Key
		var err error
		encode := func() {
			if line, err = c.e.AppendRow(line[:0], c.row, nil); err == nil {
				key, err = c.e.AppendKey(key[:0], c.row)
			}
			if err == nil {
				last := c.row[len(c.row)-1]
				c.row[len(c.row)-1] = Unchanged
				again, err = c.e.AppendRow(again[:0], c.row, line)
				c.row[len(c.row)-1] = last
			}
		}
		if n := testing.AllocsPerRun(100, encode); n != 0 || err != nil || !bytes.Equal(line, again) || !json.Valid(line) {
			t.Errorf("%v allocations a row, %v, %s", n, err, line)
		}
	}
}

func TestServerWritesWhatOnlyItCan(t *testing.T) {
	hstore := Type{Kind: Cast, OID: 20000}
	e := newEncoder(t, shapeOf(Type{Kind: Array, Delim: ',', Elem: &hstore}), false)
	row := values("1", `{"\"a\"=>\"1\""}`)
	if _, err := e.AppendRow(nil, row, nil); err == nil {
		t.Error("a value that only the server can write was written without it")
	}
	asked := 0
	e.Server = func(column int, text []byte) ([]byte, error) {
		asked++
		if column != 1 || string(text) != string(row[1]) {
			t.Errorf("the server was asked for column %d, %q", column, text)
		}
		return []byte("[{\"a\":\r\n\"1\"}]"), nil
	}
	want := `{"id":1,"v":[{"a":  "1"}]}`
	line, err := e.AppendRow(nil, row, nil)
	if string(line) != want || err != nil {
		t.Errorf("got %s, %v", line, err)
	}
	if line, err = e.AppendCopiedRow(nil, values("1", "[{\"a\":\r\n\"1\"}]")); string(line) != want || err != nil || asked != 1 {
		t.Errorf("copied: got %s, %v; the server was asked %d times", line, err, asked)
	}
	if line, err = e.AppendRow(nil, [][]byte{[]byte("1"), nil}, nil); string(line) != `{"id":1,"v":null}` || err != nil || asked != 1 {
		t.Errorf("NULL: got %s, %v; the server was asked %d times", line, err, asked)
	}
	e.Server = func(int, []byte) ([]byte, error) { return nil, errors.New("gone") }
	if line, err = e.AppendRow(nil, row, nil); err == nil || len(line) > 0 {
		t.Errorf("a failing server: got %s, %v", line, err)
	}
}
