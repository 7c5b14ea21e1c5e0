package web

import (
	"bytes"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/go-json-experiment/json/jsontext"
)

// word is one word of a search, which ignores case.
//
// Decoding a row's texts and converting them to lower case takes about 10 µs per row. Therefore mayBeIn first searches the
// bytes of the line for the ASCII part of the word. To find that part, it looks for the part's rarest byte, because the
// processor's vector instructions find a single byte quickly. With BenchmarkSearch's rows of 3 kB, a typical search examines
// 2.2 million rows per second of processor time. It would examine 0.1 million without mayBeIn, and 0.45 million if mayBeIn
// searched for the first byte.
type word struct {
	lower string   // the word in lower case
	ascii []byte   // longest ASCII part of the word, escaped as in JSON; empty if there is none
	rare  int      // index in ascii of the byte that is rarest in texts
	heads [][]byte // the word's first character in every case, such as upper and lower case; set only if ascii is empty
}

func newWord(text string) word {
	w := word{lower: strings.ToLower(text)}
	escaped, _ := jsontext.AppendQuote(nil, w.lower) // escapes the same characters as Postgres; fails only for invalid UTF-8
	for part := range bytes.FieldsFuncSeq(escaped[1:len(escaped)-1], func(r rune) bool { return r >= utf8.RuneSelf }) {
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

// frequency returns the rank of a letter in English texts; a higher rank means more frequent. It returns -1 for all other
// bytes.
func frequency(c byte) int { return strings.IndexByte("zqxjkvbpygfwmucldrhsnioate", c) }

// mayBeIn reports whether a JSON text may contain the word. If it returns false, the text does not contain the word. If it
// returns true, the match may still be in a wrong place, such as a column's name, or include a part of an escape such as \n.
func (w *word) mayBeIn(text []byte) bool {
	if len(w.ascii) == 0 {
		return slices.ContainsFunc(w.heads, func(head []byte) bool { return bytes.Contains(text, head) })
	}
	lower := w.ascii[w.rare]
	if w.hasAround(text, lower) {
		return true
	}
	isLetter := 'a' <= lower && lower <= 'z'
	return isLetter && w.hasAround(text, lower-'a'+'A')
}

// hasAround reports whether the text contains the word's ASCII part, in upper or lower case, with exactly the byte c at
// index w.rare of the part.
func (w *word) hasAround(text []byte, c byte) bool {
	n := len(w.ascii)
	for len(text) >= n {
		// The ASCII part begins w.rare bytes before c.
		start := bytes.IndexByte(text[w.rare:], c)
		if start < 0 || start+n > len(text) {
			return false
		}
		if equalFoldASCII(text[start:start+n], w.ascii) {
			return true
		}
		text = text[start+1:]
	}
	return false
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

// isInAny reports whether one of the JSON strings contains the word.
func (w *word) isInAny(texts [][]byte) bool {
	for _, v := range texts {
		if w.mayBeIn(v) && strings.Contains(strings.ToLower(string(unquoteJSON(v))), w.lower) {
			return true
		}
	}
	return false
}
