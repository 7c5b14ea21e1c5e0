package web

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// word is one word of a search, which ignores case.
type word struct {
	lower string   // the word in lower case
	ascii []byte   // its longest part without characters beyond ASCII, as JSON has it; empty if there is none
	rare  int      // index in ascii of the byte that is rarest in texts
	heads [][]byte // all cases of the first character, if ascii is empty
}

func newWord(text string) word {
	w := word{lower: strings.ToLower(text)}
	for part := range bytes.FieldsFuncSeq(escapeJSON(w.lower), func(r rune) bool { return r >= utf8.RuneSelf }) {
		if len(part) > len(w.ascii) {
			w.ascii = part
		}
	}
	for i, c := range w.ascii {
		if frequency(c) < frequency(w.ascii[w.rare]) {
			w.rare = i
		}
	}
	if len(w.ascii) == 0 {
		first, _ := utf8.DecodeRuneInString(w.lower)
		w.heads = append(w.heads, []byte(string(first)))
		for r := unicode.SimpleFold(first); r != first; r = unicode.SimpleFold(r) {
			w.heads = append(w.heads, []byte(string(r)))
		}
	}
	return w
}

// frequency ranks bytes by how often English texts have them; -1 stands for all that are not letters.
func frequency(c byte) int { return strings.IndexByte("zqxjkvbpygfwmucldrhsnioate", c) }

// mayBeIn reports whether a JSON text may have the word. If it returns false, the text does not have it; if it returns
// true, the word may still be in the wrong place, such as a column's name, or across an escape such as \n.
func (w *word) mayBeIn(text []byte) bool {
	if len(w.ascii) == 0 {
		return slices.ContainsFunc(w.heads, func(head []byte) bool { return bytes.Contains(text, head) })
	}
	n := len(w.ascii)
	lower := w.ascii[w.rare]
	upper := lower
	if 'a' <= lower && lower <= 'z' {
		upper -= 'a' - 'A'
	}
	last := len(text) - (n - 1 - w.rare) // just after the last possible place of the rare byte
	if last <= w.rare {
		return false
	}
	nextLower, nextUpper := w.rare-1, w.rare-1
	for at := w.rare; ; at++ {
		if nextLower < at {
			nextLower = indexFrom(text[:last], lower, at)
		}
		if nextUpper < at && upper != lower {
			nextUpper = indexFrom(text[:last], upper, at)
		}
		at = nextLower
		if upper != lower {
			at = min(at, nextUpper)
		}
		if at >= last {
			return false
		}
		if equalFoldASCII(text[at-w.rare:at-w.rare+n], w.ascii) {
			return true
		}
	}
}

// indexFrom returns the index of c at or after at, or the length of text.
func indexFrom(text []byte, c byte, at int) int {
	if at >= len(text) {
		return len(text)
	}
	if i := bytes.IndexByte(text[at:], c); i >= 0 {
		return at + i
	}
	return len(text)
}

// escapeJSON returns a text as it stands within a JSON string that Postgres wrote.
func escapeJSON(text string) []byte {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if e.Encode(text) != nil {
		return nil
	}
	out := b.Bytes()[1 : b.Len()-2]
	// Encode escapes two line separators that Postgres leaves alone.
	out = bytes.ReplaceAll(out, []byte(`\u2028`), []byte("\u2028"))
	return bytes.ReplaceAll(out, []byte(`\u2029`), []byte("\u2029"))
}

func equalFoldASCII(text, lower []byte) bool {
	for i, c := range text {
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		if c != lower[i] {
			return false
		}
	}
	return true
}

// isInAny reports whether one of the JSON strings has the word.
func (w *word) isInAny(texts [][]byte) bool {
	for _, v := range texts {
		if w.mayBeIn(v) && strings.Contains(strings.ToLower(string(unquoteJSON(v))), w.lower) {
			return true
		}
	}
	return false
}
