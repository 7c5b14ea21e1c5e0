package foreign

import (
	"bytes"
	"fmt"
	"unicode/utf16"
	"unicode/utf8"
)

// JSON returns JSON in a form that is safe to display. It replaces each character that [Text] escapes by a JSON escape such
// as \u202e, so a program still reads the same values. The JSON must come from an encoder, which writes characters that need
// an escape only in strings, and line breaks and tabs only between values.
func JSON(text []byte) []byte {
	if bytes.IndexFunc(text, func(r rune) bool { return !isHarmless(r, true) }) < 0 {
		return text
	}
	var b bytes.Buffer
	for i := 0; i < len(text); {
		r, n := utf8.DecodeRune(text[i:])
		switch {
		case isHarmless(r, true):
			b.Write(text[i : i+n])
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default: // an invalid byte becomes \ufffd, as in Go's decoder
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		i += n
	}
	return b.Bytes()
}
