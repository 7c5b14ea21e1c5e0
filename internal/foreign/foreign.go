// Package foreign makes text that others chose fit to be shown: what a server, a file, a peer or another user's program wrote.
// Such a text may be of any length, may not be UTF-8, and may carry escape sequences that a terminal obeys.
package foreign

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxBytes is how long a text is that Text returns.
const MaxBytes = 1 << 10

// Text returns s with its control characters, the bytes that are not UTF-8, and the characters that turn the direction of
// writing as escapes of Go: \n, \x1b, \u202e. A longer text than MaxBytes ends in an ellipsis.
func Text(s string) string {
	return escape(s, MaxBytes, false)
}

// Lines returns s as Text does, but keeps line breaks and tabs and the whole length. It is for what has been put together of
// several texts.
func Lines(s string) string {
	return escape(s, len(s)*len(`\U0010ffff`), true)
}

const ellipsis = "…"

func escape(s string, longest int, keepLines bool) string {
	if len(s) <= longest && strings.IndexFunc(s, func(r rune) bool { return !isHarmless(r, keepLines) }) < 0 {
		return s
	}
	var b strings.Builder
	fits := 0 // length of what may stay if the rest does not fit
	for i := 0; i < len(s); {
		r, n := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[i])
		case isHarmless(r, keepLines):
			b.WriteString(s[i : i+n])
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\t':
			b.WriteString(`\t`)
		case r < utf8.RuneSelf:
			fmt.Fprintf(&b, `\x%02x`, r)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
		if i += n; b.Len() > longest {
			return b.String()[:fits] + ellipsis
		}
		if b.Len() <= longest-len(ellipsis) {
			fits = b.Len()
		}
	}
	return b.String()
}

// isHarmless reports whether a terminal shows r and does nothing else with it.
func isHarmless(r rune, keepLines bool) bool {
	switch {
	case r == '\n' || r == '\t':
		return keepLines
	case r == utf8.RuneError: // also what IndexFunc makes of an invalid byte
		return false
	case unicode.IsControl(r), unicode.Is(unicode.Bidi_Control, r), r == '\u2028', r == '\u2029':
		return false
	}
	return true
}
