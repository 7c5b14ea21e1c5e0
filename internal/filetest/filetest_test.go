package filetest_test

import (
	"slices"
	"testing"

	"capture/internal/filetest"
)

func TestRows(t *testing.T) {
	for _, c := range []struct {
		file string
		want []string
		ok   bool
	}{
		{"[]\n", nil, true},
		{"[\n{\"a\":1}\n]\n", []string{`{"a":1}`}, true},
		{"[\n{\"a\": {\"b\" : [ 1,\t2 ]} },\n{\"a\":\" \\\" \\\\\",\"a\":null}\n]\n", []string{`{"a":{"b":[1,2]}}`, `{"a":" \" \\","a":null}`}, true},
		{"", nil, false},
		{"[\n", nil, false},
		{"[\n{\"a\":1}\n]", nil, false},
		{"[\n{\"a\":1}\n", nil, false},
		{"[\n{\"a\":1},\n]\n", nil, false},
		{"[\n{\"a\":1}\n{\"a\":2}\n]\n", nil, false},
		{"[\n{\"a\":1 2}\n]\n", nil, false},
		{"[\n{\"a\":1}\x00\n]\n", nil, false},
		{"[\n{\"a\":\"\xff\"}\n]\n", nil, false},
		{"[\n{\"a\":\"x},\n{\"a\":1}\n]\n", nil, false},
		{"[\n1\n]\n", nil, false},
	} {
		for range 2 { // in the second round, the valid lines are already known
			rows, err := filetest.Rows([]byte(c.file))
			if (err == nil) != c.ok || !slices.Equal(rows, c.want) {
				t.Errorf("%q: %q, %v; want %q", c.file, rows, err, c.want)
			}
		}
	}
}

// TestAddValid checks that Rows accepts a row that was passed to AddValid, even with other white space. Rows refuses an invalid
// row that was not passed to AddValid. It also refuses invalid UTF-8 and half of a surrogate pair, even in a row that was
// passed to AddValid.
func TestAddValid(t *testing.T) {
	filetest.AddValid([]string{`{"known":1}`, "{\"known\":\"\xff\"}", `{"known":"\ud800"}`})
	for row, ok := range map[string]bool{
		`{"known":1}`: true, `{"known": 1 }`: true, `{"known":1 2}`: false, "{\"known\":\"\xff\"}": false, `{"known":"\ud800"}`: false, `{"known":1}}`: false,
		`{"a":tru e}`: false, `{"a":- 1}`: false,
	} {
		if _, err := filetest.Rows([]byte("[\n" + row + "\n]\n")); (err == nil) != ok {
			t.Errorf("%q: %v", row, err)
		}
	}
}

func TestCompact(t *testing.T) {
	for s, want := range map[string]string{
		" {\"a\" :\n1 } ":     `{"a":1}`,
		`{"a":1 2}`:           `{"a":1 2}`,
		`{"a":tr  ue}`:        `{"a":tr ue}`,
		`"a" "b"`:             `"a" "b"`,
		`{"a b":"c  d"}`:      `{"a b":"c  d"}`,
		`{"a":"b\" c" }`:      `{"a":"b\" c"}`,
		`{"a":"b\\" , 1}`:     `{"a":"b\\",1}`,
		`{"a":"b\\\" c" }`:    `{"a":"b\\\" c"}`,
		`{"a": "" , "b":"c d`: `{"a":"","b":"c d`,
	} {
		if got := filetest.Compact(s); got != want {
			t.Errorf("%q: %q, want %q", s, got, want)
		}
	}
}
