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
// Decoding a row's texts and converting them to lower case costs about 10 µs a row, so mayBeIn first looks at the bytes
// of the line. It compares ASCII only, and looks for the byte of the word that is rarest in texts, which the processor's
// vector instructions find. On BenchmarkSearch's rows of 3 kB, a search examines 2.2 million rows per second of
// processor time for most words, 0.1 million without mayBeIn, and 0.45 million if mayBeIn looks for the first byte.
type word struct {
	lower string   // the word in lower case
	ascii []byte   // its longest part without characters beyond ASCII, as JSON has it; empty if there is none
	rare  int      // index in ascii of the byte that is rarest in texts
	heads [][]byte // all cases of the first character, if ascii is empty
}

func newWord(text string) word {
	w := word{lower: strings.ToLower(text)}
	escaped, _ := jsontext.AppendQuote(nil, w.lower) // escapes what Postgres escapes; fails for invalid UTF-8 only
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

// frequency ranks bytes by how often English texts have them; -1 stands for all that are not letters.
func frequency(c byte) int { return strings.IndexByte("zqxjkvbpygfwmucldrhsnioate", c) }

// mayBeIn reports whether a JSON text may have the word. If it returns false, the text does not have it; if it returns
// true, the word may still be in the wrong place, such as a column's name, or across an escape such as \n.
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

// hasAround reports whether the text has the word's ASCII part, in any case, with c as its rare byte.
func (w *word) hasAround(text []byte, c byte) bool {
	n := len(w.ascii)
	for len(text) >= n {
		// The part begins w.rare bytes before its rare byte.
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

// isInAny reports whether one of the JSON strings has the word.
func (w *word) isInAny(texts [][]byte) bool {
	for _, v := range texts {
		if w.mayBeIn(v) && strings.Contains(strings.ToLower(string(unquoteJSON(v))), w.lower) {
			return true
		}
	}
	return false
}
