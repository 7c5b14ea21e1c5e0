package statefile

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"
)

// readAll returns the rows that r yields until the end of the file or an error. At the end of the file, err is nil.
func readAll(r *Reader) (rows []Row, err error) {
	for {
		row, err := r.Next()
		if err == io.EOF {
			return rows, nil
		}
		if err != nil {
			return rows, err
		}
		row.Text = bytes.Clone(row.Text)
		row.Members = append([]Member(nil), row.Members...)
		for i, m := range row.Members {
			row.Members[i] = Member{bytes.Clone(m.Name), bytes.Clone(m.Value)}
		}
		rows = append(rows, row)
	}
}

// TestReaderKeepsValues checks that the Reader returns values exactly as they are in the file, whatever the white space
// around them and however the file's bytes arrive.
func TestReaderKeepsValues(t *testing.T) {
	const file = "\uFEFF [\n{\"id\" : 12345678901234567890.000,\"n\":1e400 , \"n\":-0.0,\r\n\t\"s\":\"\\u0041\\ud800\\/ \\u0000é\"},\n" +
		"\n{\"j\":{ \"b\" : [1,\n\n 2] },\"\\u0061\\n\":null     }\n,{}]\n"
	want := []struct {
		line    int64
		text    string
		members [][2]string
	}{
		{2, `{"id":12345678901234567890.000,"n":1e400,"n":-0.0,"s":"\u0041\ud800\/ \u0000é"}`,
			[][2]string{{"id", "12345678901234567890.000"}, {"n", "1e400"}, {"n", "-0.0"}, {"s", `"\u0041\ud800\/ \u0000é"`}}},
		{5, "{\"j\":{ \"b\" : [1,\n\n 2] },\"\\u0061\\n\":null}", [][2]string{{"j", "{ \"b\" : [1,\n\n 2] }"}, {"a\n", "null"}}},
		{8, "{}", nil},
	}
	for name, from := range map[string]io.Reader{
		"at once": strings.NewReader(file), "a byte at a time": iotest.OneByteReader(strings.NewReader(file)), "with its end": iotest.DataErrReader(strings.NewReader(file)),
	} {
		rows, err := readAll(NewReader(from))
		if err != nil || len(rows) != len(want) {
			t.Fatalf("%s: %d rows, %v", name, len(rows), err)
		}
		for i, row := range rows {
			if row.Line != want[i].line || string(row.Text) != want[i].text || len(row.Members) != len(want[i].members) {
				t.Errorf("%s: row %d is %d %q %q", name, i, row.Line, row.Text, row.Members)
				continue
			}
			for j, m := range row.Members {
				if string(m.Name) != want[i].members[j][0] || string(m.Value) != want[i].members[j][1] {
					t.Errorf("%s: row %d has the member %q %q", name, i, m.Name, m.Value)
				}
			}
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	for file, want := range map[string]string{
		"":                           "line 1: the file is empty; a table without rows is []",
		" \n ":                       "line 2: the file is empty; a table without rows is []",
		"x":                          "line 1: the file is not JSON: it starts with neither [ nor {",
		"\"a\"":                      "line 1: the file is not JSON: it starts with neither [ nor {",
		"[":                          "line 1: the file is cut short: it ends within the array",
		"[\n{\"a\":1}":               "line 2: the file is cut short: it ends within the array",
		"[\n{\"a\":1},\n":            "line 3: the file is cut short: it ends within the array",
		"[\n{\"a\":\"b":              "line 2: the file is cut short: it ends within the array",
		"[\n{\"a\"\n:":               "line 2: the file is cut short: it ends within the array",
		"[1]":                        "line 1: not an array of objects: what is here does not start with {",
		"[{},\n[]]":                  "line 2: not an array of objects: what is here does not start with {",
		"[{},\n]":                    "line 2: a comma stands before ]: take the comma out",
		"[,{}]":                      "line 1: not an array of objects: what is here does not start with {",
		"[{}\n{}]":                   "line 2: not a JSON array: a comma or ] is missing here",
		"[{}\nx]":                    "line 2: not a JSON array: a comma or ] is missing here",
		"[{}}":                       "line 1: not a JSON array: a comma or ] is missing here",
		"[]\n x":                     "line 2: there is something after the end of the array",
		"[]]":                        "line 1: there is something after the end of the array",
		"[\n{},\n{\"a\":1]":          "line 3: not valid JSON, at byte 7 of the row",
		"[\n{},\n{\"a\":1,}]":        "line 3: not valid JSON, at byte 7 of the row: a comma stands before the end of the object: take the comma out",
		"[{\"a\":01}]":               "line 1: not valid JSON, at byte 7 of the row",
		"[\n{\n\"a\":\n\"\x01\"}]":   "line 2: not valid JSON, at byte 9 of the row",
		"[{\"a\":\"\\x\"}]":          "line 1: not valid JSON, at byte 7 of the row",
		"[{\"a\" 1}]":                "line 1: not valid JSON, at byte 6 of the row",
		"[{1:1}]":                    "line 1: not valid JSON, at byte 2 of the row",
		"[{\"a\":tru}]":              "line 1: not valid JSON, at byte 9 of the row",
		"[{\"a\":NaN}]":              "line 1: not valid JSON, at byte 6 of the row: JSON has no NaN and no Infinity; write \"NaN\", \"Infinity\" or null",
		"[\n{\"a\":\"\xff\"}]":       "line 2: not valid UTF-8; if the file is in another encoding, convert it first (iconv -t UTF-8)",
		"[\n{\"a\":[\"\xed\xa0\"]}]": "line 2: not valid UTF-8; if the file is in another encoding, convert it first (iconv -t UTF-8)",
	} {
		if _, err := readAll(NewReader(strings.NewReader(file))); err == nil || err.Error() != want {
			t.Errorf("%q:\n%v, want\n%s", file, err, want)
		}
	}
	for _, file := range []string{`[{"\u0000":1}]`, `[{"\ud800":1}]`} {
		if _, err := readAll(NewReader(strings.NewReader(file))); err == nil || !strings.HasPrefix(err.Error(), "line 1: a name in the row: ") {
			t.Errorf("%q: %v", file, err)
		}
	}
	broken := errors.New("the disk is broken")
	_, err := readAll(NewReader(io.MultiReader(strings.NewReader("[{\"a\":1},\n{\"a\":\"b"), iotest.ErrReader(broken))))
	if !errors.Is(err, broken) || !strings.HasPrefix(err.Error(), "line 2: ") {
		t.Errorf("a broken disk: %v", err)
	}
}

// TestReaderErrorsShowNothing checks that no error quotes the file, wherever the file is cut and whichever byte is changed.
func TestReaderErrorsShowNothing(t *testing.T) {
	file := []byte(`[{"SECRET":"SECRET","b":{"SECRET":["SECRET",SECRET1]}},` + "\n" + `{"SECRET":"SECRET\u0041","b":12345678}]`)
	refused := 0
	check := func(file []byte) {
		t.Helper()
		_, err := readAll(NewReader(bytes.NewReader(file)))
		if err == nil {
			return
		}
		refused++
		for _, part := range []string{"SECRET", "ECRE", "12345678", "jsontext"} {
			if strings.Contains(err.Error(), part) {
				t.Fatalf("%q: the error shows %s: %v", file, part, err)
			}
		}
	}
	for _, valid := range [][]byte{file, bytes.Replace(file, []byte("SECRET1"), []byte(`"SECRET"`), 1)} {
		for i := range valid {
			check(valid[:i])
			for _, c := range []byte("{}[],:\"\\ \n0-.x\xff\x00") {
				changed := bytes.Clone(valid)
				changed[i] = c
				check(changed)
			}
		}
	}
	if refused < 1000 {
		t.Errorf("only %d files were refused", refused)
	}
}

func TestReaderBoundsDepth(t *testing.T) {
	nested := func(depth int) string {
		return `[{"a":` + strings.Repeat("[", depth) + strings.Repeat("]", depth) + "}]"
	}
	if rows, err := readAll(NewReader(strings.NewReader(nested(9998)))); err != nil || len(rows) != 1 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	if _, err := readAll(NewReader(strings.NewReader(nested(1_000_000)))); err == nil || !strings.Contains(err.Error(), "not valid JSON") {
		t.Errorf("a depth of a million: %v", err)
	}
}

func TestReaderBoundsRows(t *testing.T) {
	const limit = 1 << 20
	reader := func(file string) *Reader {
		r := NewReader(strings.NewReader(file))
		r.maxRow = limit
		return r
	}
	small := `{"a":"` + strings.Repeat("x", limit/2) + `"}`
	if rows, err := readAll(reader("[" + strings.Repeat(small+",", 9) + small + "]")); err != nil || len(rows) != 10 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
	for _, large := range []string{
		`{"a":"` + strings.Repeat("x", 3*limit) + `"}`,
		"{" + strings.Repeat(`"a":"`+strings.Repeat("x", 1000)+`",`, 3*limit/1000) + `"a":1}`,
		`{"a":"` + strings.Repeat("x", 3*limit),
	} {
		if rows, err := readAll(reader("[{},\n" + large + "]")); !errors.Is(err, errRowTooLong) || len(rows) != 1 || !strings.HasPrefix(err.Error(), "line 2: ") {
			t.Errorf("%d rows, %v", len(rows), err)
		}
	}
}

// TestReaderLetsLargeBuffersGo checks that the buffers become small again after a large value, and that the Reader reads the
// rows after this value as usual.
func TestReaderLetsLargeBuffersGo(t *testing.T) {
	const lines = 1000
	large := `{"id":0,"text":[` + strings.Repeat("\n", lines) + `"` + strings.Repeat("x", maxKeptBuffer+1) + `"]}`
	file := "[\n" + large + ",\n" + strings.Repeat("{\"id\":1},\n", 10_000) + large + ",{\"id\":2}]\n"
	r := NewReader(strings.NewReader(file))
	for i := range 10_003 {
		row, err := r.Next()
		if err != nil {
			t.Fatalf("row %d: %v", i, err)
		}
		line := int64(i + 2)
		if i > 0 {
			line += lines
		}
		if i == 10_002 {
			line += lines - 1
		}
		if row.Line != line {
			t.Fatalf("row %d is on line %d, want %d", i, row.Line, line)
		}
		if i > 0 && i < 10_001 && cap(r.text) > maxKeptBuffer {
			t.Fatalf("after row %d the buffer has %d bytes", i, cap(r.text))
		}
		if n := len(r.decoder.UnreadBuffer()); n > 2*bufferSize {
			t.Fatalf("after row %d the decoder has read %d bytes ahead", i, n)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Error(err)
	}
}

// FuzzParseRow checks that ParseRow and encoding/json accept the same JSON objects, except objects with some \u escapes or
// with very deep nesting.
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
			// ParseRow may refuse valid JSON with \u escapes, because a name can have escapes that are impossible in a
			// column's name.
			if valid && !bytes.Contains(text, []byte(`\u`)) && bytes.Count(text, []byte("{"))+bytes.Count(text, []byte("[")) < 10_000 {
				t.Fatalf("refused %q: %v", text, err)
			}
			return
		}
		for _, m := range row.Members {
			if !json.Valid(m.Value) {
				t.Fatalf("the value %q of %q", m.Value, text)
			}
		}
		if again, err := ParseRow(row.Text); err != nil || !bytes.Equal(again.Text, row.Text) || len(again.Members) != len(row.Members) {
			t.Fatalf("%q became %q, and that %q, %v", text, row.Text, again.Text, err)
		}
	})
}
