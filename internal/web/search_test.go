package web

import (
	"testing"
)

func TestSearchWords(t *testing.T) {
	for _, c := range []struct {
		word, text string
		want       bool
	}{
		{"a", `"A"`, true}, {"abc", `"xxABCxx"`, true}, {"abc", `"ab"`, false}, {"zebra", `"a ZEBRA"`, true},
		{"n", `"\n"`, false}, {"u2", `"\u200b"`, false}, {"\\n", `"\\n"`, true}, {"é", `"É"`, true}, {"aé", `"AÉ"`, true},
		{"\u2028", "\"\u2028\"", true}, {"\x01", `"\u0001"`, true}, {"\x1f", `"\u001f"`, true}, {"\b", `"\b"`, true}, {"\x7f", "\"\x7f\"", true}, {"/", `"/"`, true}, {"<b>", `"<B>"`, true}, {"&", `"&"`, true}, {"ß", `"SS"`, false},
		{"日本", `"in 日本"`, true}, {"日本", `"日 本"`, false}, {"Σ", `"ς σ"`, true}, {"ÖL", `"öl"`, true}, {"aab", `"aaab"`, true}, {"aaaa", `"aaa"`, false},
	} {
		w := newWord(c.word)
		if got := w.isInAny([][]byte{[]byte(c.text)}); got != c.want {
			t.Errorf("%q in %s: %t", c.word, c.text, got)
		}
	}
}
