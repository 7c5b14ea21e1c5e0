package foreign_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"capture/internal/foreign"
)

func TestTextEscapes(t *testing.T) {
	for in, want := range map[string]string{
		"":                       "",
		"an honest é 🗳️ message": "an honest é 🗳️ message",
		"\x1b[2J\x1b]0;owned\a":  `\x1b[2J\x1b]0;owned\x07`,
		"a\r\nb\tc":              `a\x0d\nb\tc`,
		"\u009b31m":              `\u009b31m`,
		"bad \xff\xfe bytes":     `bad \xff\xfe bytes`,
		"\u202etxt.exe\u2066":    `\u202etxt.exe\u2066`,
		"one\u2028two":           `one\u2028two`,
		// invisible characters: zero-width characters, fillers, tags, and variation selectors that emoji do not use
		"a\u200b\u200d\u2060\ufeff\u00ad\u061c": `a\u200b\u200d\u2060\ufeff\u00ad\u061c`,
		"\u3164\u115f\u034f\ufe00":              `\u3164\u115f\u034f\ufe00`,
		"\U000e0041\U000e0100\U000e0000":        `\U000e0041\U000e0100\U000e0000`,
		"\x00":                                  `\x00`,
		"a replacement \ufffd":                  `a replacement \ufffd`,
	} {
		if got := foreign.Text(in); got != want {
			t.Errorf("Text(%q) is %q, not %q", in, got, want)
		}
	}
	if long := strings.Repeat("x", 2*foreign.MaxBytes); foreign.Line("one\n\ttwo\x1b[0m"+long) != `one\n\ttwo\x1b[0m`+long {
		t.Error("Line does not escape a line break, or limits the length")
	}
	if got := foreign.Lines("one\n\ttwo\x1b[0m"); got != "one\n\ttwo\\x1b[0m" {
		t.Errorf("Lines gives %q", got)
	}
}

func TestTextIsBounded(t *testing.T) {
	for _, in := range []string{strings.Repeat("x", 200_000), strings.Repeat("\x1b", 200_000), strings.Repeat("é", 513), strings.Repeat("\xff", 300)} {
		got := foreign.Text(in)
		if len(got) > foreign.MaxBytes || !strings.HasSuffix(got, "…") || !utf8.ValidString(got) {
			t.Errorf("%d bytes become %d: %.20q…%q", len(in), len(got), got, got[max(0, len(got)-8):])
		}
	}
	if in := strings.Repeat("x", foreign.MaxBytes); foreign.Text(in) != in {
		t.Error("a text of just the bound is changed")
	}
}

// TestJSON checks that JSON of Go's encoder becomes harmless, and keeps its values.
func TestJSON(t *testing.T) {
	for in, want := range map[string]string{
		"an honest é 🗳️ <message>": `"an honest é 🗳️ <message>"`,
		"\x1b\u009b\x7f\n\t":       `"\u001b\u009b\u007f\n\t"`,
		"\u202e\u200d\u2028\ufeff": `"\u202e\u200d\u2028\ufeff"`,
		`\` + "\u202e":             `"\\\u202e"`,
		"\U000e0041":               `"\udb40\udc41"`,
	} {
		var b bytes.Buffer
		encoder := json.NewEncoder(&b)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(in); err != nil {
			t.Fatal(err)
		}
		got, back := foreign.JSON(b.Bytes()), ""
		if err := json.Unmarshal(got, &back); err != nil || back != in || string(got) != want+"\n" {
			t.Errorf("JSON of %q is %q, not %q, and means %q: %v", in, got, want, back, err)
		}
	}
	lines := "{\n\t\"a\": 1\n}\n"
	if got := foreign.JSON([]byte(lines)); string(got) != lines {
		t.Errorf("%q becomes %q", lines, got)
	}
	if got := foreign.JSON([]byte("\"\xff\"")); string(got) != `"\ufffd"` {
		t.Errorf("an invalid byte becomes %q", got)
	}
}

func FuzzText(f *testing.F) {
	f.Add("a\x1b[0mé\xff")
	f.Fuzz(func(t *testing.T, in string) {
		got := foreign.Text(in)
		if len(got) > foreign.MaxBytes || !utf8.ValidString(got) {
			t.Fatalf("%q becomes %q", in, got)
		}
		for _, r := range got {
			if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 {
				t.Fatalf("%q becomes %q", in, got)
			}
		}
	})
}
