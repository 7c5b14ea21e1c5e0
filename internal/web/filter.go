package web

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	maxQuery = 400 // bytes
	maxWords = 12
)

// filter says which rows are wanted. Its zero value wants all.
type filter struct {
	words []word
	tag   string
	quick []byte // what each line with the tag has in it
	from  string // the least time wanted, "" for any
	to    string // the least time no longer wanted, "" for none
}

// parseFilter reads q, tag, from and to. Its errors are for the caller of the API.
func parseFilter(query url.Values, l *layout) (filter, error) {
	var f filter
	q := query.Get("q")
	if len(q) > maxQuery || !utf8.ValidString(q) {
		return f, fmt.Errorf("q takes up to %d bytes of text", maxQuery)
	}
	fields := strings.Fields(q)
	if len(fields) > maxWords {
		return f, fmt.Errorf("q takes up to %d words", maxWords)
	}
	for _, w := range fields {
		f.words = append(f.words, newWord(w))
	}
	if f.tag = query.Get("tag"); f.tag != "" {
		if l.tags < 0 {
			return f, errors.New("tag: the table has no column of tags; name one with --tags-column")
		}
		f.quick = escape(f.tag)
	}
	from, to := query.Get("from"), query.Get("to")
	if (from != "" || to != "") && l.time < 0 {
		return f, errors.New("from and to: the table has no column of times; name one with --time-column")
	}
	var err error
	if f.from, err = bound(from, false); err != nil {
		return f, fmt.Errorf("from %w", err)
	}
	if f.to, err = bound(to, true); err != nil {
		return f, fmt.Errorf("to %w", err)
	}
	return f, nil
}

// bound is a day or a moment as times stand in the lines, so that comparing their bytes compares the times; the end of
// the day for a last one.
func bound(text string, last bool) (string, error) {
	if text == "" {
		return "", nil
	}
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		if last {
			day = day.AddDate(0, 0, 1)
		}
		return day.Format(time.DateOnly), nil
	}
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return "", errors.New("takes a day as 2026-01-31, or a moment as 2026-01-31T12:00:00Z")
	}
	return t.UTC().Format("2006-01-02T15:04:05.999999"), nil
}

func (f *filter) empty() bool {
	return len(f.words) == 0 && f.tag == "" && f.from == "" && f.to == ""
}

// match says whether a row is wanted: each word is in some text of it, regardless of case.
func (f *filter) match(l *layout, line []byte) bool {
	// What is cheap for the whole line comes first.
	if f.quick != nil && !bytes.Contains(line, f.quick) {
		return false
	}
	for i := range f.words {
		if !f.words[i].maybeIn(line) {
			return false
		}
	}
	if f.from != "" || f.to != "" {
		when := l.when(line)
		if len(when) == 0 || string(when) < f.from || f.to != "" && string(when) >= f.to {
			return false
		}
	}
	if f.tag != "" {
		found := false
		l.eachTag(line, func(tag []byte) bool {
			found = string(tag) == f.tag
			return !found
		})
		if !found {
			return false
		}
	}
	if len(f.words) == 0 {
		return true
	}
	texts := make([][]byte, 0, 8)
	for _, column := range l.texts {
		if v := l.field(line, column); len(v) > 2 && v[0] == '"' {
			texts = append(texts, v)
		}
	}
	for i := range f.words {
		if !f.words[i].inAny(texts) {
			return false
		}
	}
	return true
}

// word is one word of a search.
type word struct {
	lower string   // as it is compared
	ascii []byte   // the longest part of it, as JSON writes it, that has no letter beyond ASCII; nil for none
	rare  int      // index into ascii of the byte that is least likely in a text
	heads []string // without ascii: all cases of the first letter
}

func newWord(text string) word {
	w := word{lower: strings.ToLower(text)}
	for part := range bytes.FieldsFuncSeq(escape(w.lower), func(r rune) bool { return r >= utf8.RuneSelf }) {
		if len(part) > len(w.ascii) {
			w.ascii = part
		}
	}
	for i, c := range w.ascii {
		if rarity(c) < rarity(w.ascii[w.rare]) {
			w.rare = i
		}
	}
	if len(w.ascii) == 0 {
		first, _ := utf8.DecodeRuneInString(w.lower)
		w.heads = append(w.heads, string(first))
		for r := unicode.SimpleFold(first); r != first; r = unicode.SimpleFold(r) {
			w.heads = append(w.heads, string(r))
		}
	}
	return w
}

// rarity is low for a byte that is seldom in texts: most signs, then letters by how often English has them.
func rarity(c byte) int { return strings.IndexByte("zqxjkvbpygfwmucldrhsnioate", c) }

// escape is the text as it stands within a JSON string that Postgres wrote.
func escape(text string) []byte {
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

// maybeIn is quick and never wrong when it says no. It may take the n of \n for a letter.
func (w *word) maybeIn(text []byte) bool {
	n := len(w.ascii)
	if n == 0 {
		return slices.ContainsFunc(w.heads, func(head string) bool { return bytes.Contains(text, []byte(head)) })
	}
	lower := w.ascii[w.rare]
	upper := lower
	if 'a' <= lower && lower <= 'z' {
		upper -= 'a' - 'A'
	}
	last := len(text) - (n - 1 - w.rare) // beyond the last place of the rare byte
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
		if equalFold(text[at-w.rare:at-w.rare+n], w.ascii) {
			return true
		}
	}
}

// indexFrom is the place of c at or after at, or the length of text.
func indexFrom(text []byte, c byte, at int) int {
	if at >= len(text) {
		return len(text)
	}
	if i := bytes.IndexByte(text[at:], c); i >= 0 {
		return at + i
	}
	return len(text)
}

func equalFold(text, lower []byte) bool {
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

// inAny says whether one of the JSON strings has the word in its text.
func (w *word) inAny(texts [][]byte) bool {
	for _, v := range texts {
		if w.maybeIn(v) && strings.Contains(strings.ToLower(string(unquote(v))), w.lower) {
			return true
		}
	}
	return false
}
