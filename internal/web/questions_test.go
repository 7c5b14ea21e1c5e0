package web

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"capture/snapshot/rowjson"
)

func TestComparedText(t *testing.T) {
	for text, want := range map[string]string{
		"How do I reset my password?":            "how do i reset my password",
		"  how\tdo\n\nI reset  MY password ?! …": "how do i reset my password",
		"Où est le CAFÉ ?":                       "où est le café",
		"\u200bhow\u200f do I":                   "how do i",
		"パスワードは？":                                "パスワードは",
		"ما هي كلمة السر؟":                       "ما هي كلمة السر",
		"C++":                                    "c++",
		"(a) and (b)":                            "(a) and (b",
		"???":                                    "???",
		" ? ! ":                                  "? !",
		" \u200b ":                               "",
		"constructor":                            "constructor",
	} {
		if got := string(appendComparedText([]byte("..."), []byte(text))); got != "..."+want {
			t.Errorf("%q is compared as %q, want %q", text, got, want)
		}
	}
}

// TestCutJSONString checks that a shortened JSON string is still a JSON string, and contains the beginning of the text.
func TestCutJSONString(t *testing.T) {
	text := "a\"\\\n\x01é日😀" + strings.Repeat("\u2028\x1f", 3) + "end"
	whole := []byte(`"a\"\\\n\u0001é日😀` + strings.Repeat("\u2028\\u001f", 3) + `end"`)
	for limit := 2; limit < len(whole)+2; limit++ {
		var got string
		cut := cutJSONString(whole, limit)
		if err := json.Unmarshal(cut, &got); err != nil || len(cut) > limit || !strings.HasPrefix(text, got) || !utf8.ValidString(got) {
			t.Errorf("limit %d: %s, %v", limit, cut, err)
		}
		if limit >= len(whole) && got != text || limit == len(whole)-1 && got != text[:len(text)-1] {
			t.Errorf("limit %d: %q", limit, got)
		}
	}
}

func TestQuestionsWithNegativeVotes(t *testing.T) {
	r := newRowsTable(t, votesShape())
	today := time.Now().UTC()
	id := 0
	add := func(question, tags string, daysAgo int) {
		id++
		r.vote(id, question, "a", tags, "", today.AddDate(0, 0, -daysAgo).Format("2006-01-02 15:04:05"))
	}
	for i, question := range []string{"Where is it?", "where  is IT", "WHERE\nis it ?!"} {
		add(question, "{Incorrect}", 10-i)
	}
	add("Where is it?", "{Looks Good}", 1)
	add("Where is it?", `{Incorrect,"Looks good, mostly"}`, 1)
	add("Where is it?", "{}", 1)                      // without a tag, a vote is neither positive nor negative
	add("Where is it?", "{Incorrect}", summaryDays+1) // the vote is older than the period that the summary covers
	add("Where was it?", "{Incorrect}", 2)
	add("Where was it?", "{Incorrect}", 3)
	add("Good", "{Looks Good}", 1)
	add("", "{Incorrect}", 1)
	add("\x00", "{Incorrect}", 1)
	r.commit()
	h := newTableHarness(t, r, nil)
	s := h.readSummary(t)
	day := func(daysAgo int) string { return today.AddDate(0, 0, -daysAgo).Format(time.DateOnly) }
	want := []questionCount{
		{ID: s.Questions[0].ID, Text: "Where is it?", Negative: 3, Positive: 2, Last: day(8)},
		{ID: s.Questions[1].ID, Text: "Where was it?", Negative: 2, Last: day(2)},
	}
	if !slices.Equal(s.Questions, want) {
		t.Errorf("questions: %+v", s.Questions)
	}

	// The ID of a question selects its votes, in lists and downloads.
	selected := func(query string) (n int) {
		t.Helper()
		w := h.do("GET", "/api/votes?"+query)
		var page struct{ Rows []json.RawMessage }
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != 200 {
			t.Fatalf("%s: %d %s", query, w.Code, w.Body)
		}
		w = h.do("GET", "/api/votes.jsonl?"+query)
		if lines := strings.Count(w.Body.String(), "\n"); lines != len(page.Rows) {
			t.Errorf("%s: %d votes in the list, %d in the download", query, len(page.Rows), lines)
		}
		return len(page.Rows)
	}
	question := "question=" + s.Questions[0].ID
	if n := selected(question); n != 7 {
		t.Errorf("%d votes with the question", n)
	}
	if n := selected(question + "&tag=Incorrect&from=" + day(8)); n != 2 {
		t.Errorf("%d votes with question, tag and day", n)
	}
	for _, bad := range []string{"1", strings.Repeat("g", 32), strings.Repeat("0", 32), strings.Repeat("a", 34), url.QueryEscape("Where is it?")} {
		w := h.do("GET", "/api/votes?question="+bad)
		if w.Code != 400 {
			t.Errorf("question=%s: %d", bad, w.Code)
		}
		errorText(t, w)
	}
	if strings.Contains(h.log.String(), "here") {
		t.Errorf("a question is in the log: %s", h.log)
	}
}

// TestQuestionsOfOtherTables checks tables that lack times, questions or tags, or that store tags and times in columns of
// other types.
func TestQuestionsOfOtherTables(t *testing.T) {
	shape := func(columns ...rowjson.Column) *rowjson.Shape {
		return &rowjson.Shape{Schema: "public", Table: "t", Fingerprint: "t", Key: []int{0},
			Columns: append([]rowjson.Column{{Name: "id", TypeName: "integer", Type: intType}}, columns...)}
	}
	text := rowjson.Column{Name: "prompt", TypeName: "text", Type: textType}
	tags := rowjson.Column{Name: "tags", TypeName: "text[]", Type: tagsType}
	for name, c := range map[string]struct {
		shape *rowjson.Shape
		rows  [][]string
		tags  string
		want  string // expected questions
	}{
		"no times":    {shape(text, tags), [][]string{{"1", "A?", "{x}"}, {"2", "a", "{x}"}, {"3", "b", "{Looks Good}"}}, "", "[A? 2 0 ]"},
		"no question": {shape(tags), [][]string{{"1", "{x}"}}, "", "[]"},
		"no tags":     {shape(text), [][]string{{"1", "a"}}, "", "[]"},
		"tags in JSON": {shape(text, rowjson.Column{Name: "labels", TypeName: "jsonb", Type: jsonType}),
			[][]string{{"1", "a", `["x"]`}, {"2", "a", `"Looks Good"`}, {"3", "a", `[]`}, {"4", "a", `[[["y"]]]`}}, "labels", "[a 2 1 ]"},
		"tags in a text": {shape(text, rowjson.Column{Name: "labels", TypeName: "text", Type: textType}),
			[][]string{{"1", "a", "Looks Good, Incorrect"}, {"2", "a", "Incorrect,Late"}}, "labels", "[a 1 1 ]"},
		"times as numbers": {shape(text, tags, rowjson.Column{Name: "made", TypeName: "numeric", Type: rowjson.Type{Kind: rowjson.Number, OID: 1700}}),
			[][]string{{"1", "a", "{x}", "1750179480"}, {"2", "a", "{x}", "1750265880.5"}, {"3", "a", "{x}", "1e300"}, {"4", "a", "{x}", "NaN"}, {"5", "a", "{x}", "-1"}},
			"", "[a 2 0 2025-06-18]"},
		"half characters in JSON": {shape(text, rowjson.Column{Name: "labels", TypeName: "json", Type: rowjson.Type{Kind: rowjson.JSON, OID: 114}}),
			[][]string{{"1", "a", `["\ud800"]`}, {"2", "a", `["\udc00\ud800", "Looks Good"]`}, {"3", "a", `7`}, {"4", "a", `null`}}, "labels", "[a 1 1 ]"},
		"tags in the question": {shape(text), [][]string{{"1", "a"}}, "prompt", "[]"},
	} {
		r := newRowsTable(t, c.shape)
		for _, row := range c.rows {
			r.put(row...)
		}
		r.commit()
		h := newTableHarness(t, r, func(cfg *Config) {
			cfg.TagsColumn = c.tags
			if name == "times as numbers" {
				cfg.TimeColumn = "made"
			}
		})
		var got []string
		for _, q := range h.readSummary(t).Questions {
			got = append(got, fmt.Sprint(q.Text, " ", q.Negative, " ", q.Positive, " ", q.Last))
		}
		if fmt.Sprint(got) != c.want {
			t.Errorf("%s: %q, want %s", name, got, c.want)
		}
		table, _ := h.votes.tables.current(nil)
		if counts := newCounting(table, period{}).votes != nil; counts != (c.want != "[]") {
			t.Errorf("%s: memory for questions: %v", name, counts)
		}
		w := h.do("GET", "/api/votes?question="+strings.Repeat("0a", 16))
		if hasQuestion := name != "no question" && name != "tags in the question"; (w.Code == 200) != hasQuestion {
			t.Errorf("%s: %d for a question", name, w.Code)
		}
	}
}

// TestManyQuestions checks that the questions with the most negative votes are found and counted exactly, in bounded memory,
// however many questions there are.
func TestManyQuestions(t *testing.T) {
	for name, c := range map[string]struct {
		distinct int // number of questions
		votes    int // smallest number of votes of a question
	}{
		"one vote each":  {120_000, 1},
		"two votes each": {60_000, 2},
	} {
		g := newQuestionGroups(c.distinct * c.votes)
		idOf := func(i int) questionID {
			sum := sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})
			return questionID(sum[:16])
		}
		each := func(count func(id questionID)) {
			for round := range 50 {
				questions := 20
				if round < c.votes {
					questions = c.distinct
				}
				for i := range questions {
					count(idOf(i))
				}
			}
		}
		each(g.prepare)
		if !g.selectCandidates() {
			t.Fatal("no candidates")
		}
		each(func(id questionID) {
			if g.isCandidate(id) {
				g.add(id, []byte(`"text"`), false, 0)
			}
		})
		if len(g.groups) > maxQuestionGroups {
			t.Errorf("%s: %d groups", name, len(g.groups))
		}
		worst := g.worst()
		found := map[string]bool{}
		for i, q := range worst {
			found[q.ID] = true
			if want := 50; i < 20 && q.Negative != want || i >= 20 && q.Negative != 2 {
				t.Errorf("%s: question %d has %d votes", name, i, q.Negative)
			}
		}
		for i := range 20 {
			if !found[idOf(i).String()] {
				t.Errorf("%s: question %d is missing", name, i)
			}
		}
	}
}
