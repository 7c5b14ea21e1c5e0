// Package foreign makes untrusted text safe to display. Such text comes from a server, a file, a peer or another user's
// program. It may have any length, may not be valid UTF-8, and may contain escape sequences that control a terminal.
package foreign

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// MaxBytes is the maximum length in bytes of a text that Text returns.
const MaxBytes = 1 << 10

// Text returns s in a form that is safe to display. It writes Go escapes such as \n, \x1b and \u202e in place of control
// characters, Unicode's line separators, invalid UTF-8, invisible characters, and characters that change the direction of
// writing. If the result would be longer than MaxBytes, Text cuts it off and appends an ellipsis.
func Text(s string) string {
	return escape(s, MaxBytes, false)
}

// Line escapes s as Text does, but does not limit the length. It is for messages that are composed of several texts. Because it
// also escapes line breaks, no name in the message can imitate another line.
func Line(s string) string {
	return escape(s, len(s)*len(`\U0010ffff`), false)
}

// Lines escapes s as Line does, but keeps line breaks and tabs. It is for messages that have several lines on purpose.
func Lines(s string) string {
	return escape(s, len(s)*len(`\U0010ffff`), true)
}

const ellipsis = "…"

func escape(s string, longest int, keepLines bool) string {
	if len(s) <= longest && strings.IndexFunc(s, func(r rune) bool { return !isHarmless(r, keepLines) }) < 0 {
		return s
	}
	var b strings.Builder
	fits := 0 // length of the part of b that leaves room for the ellipsis
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
		case r > 0xffff:
			fmt.Fprintf(&b, `\U%08x`, r)
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

// isHarmless reports whether a terminal displays r and does nothing else. Invisible characters such as the zero-width joiner
// are not harmless, although many languages and emoji need some of them: an escape is readable, but nobody can see that an
// invisible character makes two names different.
func isHarmless(r rune, keepLines bool) bool {
	switch {
	case r == '\n' || r == '\t':
		return keepLines
	case r < utf8.RuneSelf:
		return ' ' <= r && r < 0x7f
	case r == utf8.RuneError: // IndexFunc also passes RuneError for an invalid byte
		return false
	case r == emojiForm || r == textForm:
		return true
	}
	return !unicode.In(r, unicode.Cc, unicode.Cf, unicode.Zl, unicode.Zp, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// After an emoji, textForm asks for a form without colors and emojiForm for a form with colors. Phones write these
// characters, and they do not change the meaning of a name.
const textForm, emojiForm = '\ufe0e', '\ufe0f'
