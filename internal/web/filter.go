package web

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
	"unicode/utf8"
)

// filter selects rows. The zero value selects all rows.
type filter struct {
	words []word
	tag   string
	from  string // earliest time selected; "" means no limit
	to    string // first time after the selected range; "" means no limit

	question questionID // selected question; zero means any question
}

// parseQuery parses the query of a request. Its error is meant for the client. parseQuery must not ignore a parameter with a
// wrong encoding: if this parameter is a filter, the answer would contain all votes.
func parseQuery(r *http.Request) (url.Values, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, errors.New("what follows the ? is not encoded as in a URL: a % is %25, and a ; is %3B")
	}
	return query, nil
}

// parseFilter parses the parameters q, tag, question, from and to. Its errors are meant for the client.
func parseFilter(query url.Values, c *columnRoles) (filter, error) {
	var f filter
	q := query.Get("q")
	if len(q) > maxQueryBytes || !utf8.ValidString(q) {
		return f, fmt.Errorf("q takes up to %d bytes of text", maxQueryBytes)
	}
	fields := strings.Fields(q)
	if len(fields) > maxQueryWords {
		return f, fmt.Errorf("q takes up to %d words", maxQueryWords)
	}
	for _, text := range fields {
		f.words = append(f.words, newWord(text))
	}
	if f.tag = query.Get("tag"); f.tag != "" && c.tags < 0 {
		return f, errors.New("tag: the table has no column of tags; name one with --tags-column")
	}
	if text := query.Get("question"); text != "" {
		var ok bool
		switch f.question, ok = parseQuestionID(text); {
		case !ok:
			return f, errors.New("question takes the id of a question, which /api/summary has")
		case c.question < 0:
			return f, errors.New("question: the table has no column of questions")
		}
	}
	from, to := query.Get("from"), query.Get("to")
	if (from != "" || to != "") && c.time < 0 {
		return f, errors.New("from and to: the table has no column of times; name one with --time-column")
	}
	var err error
	if f.from, err = parseBound(from, false); err != nil {
		return f, fmt.Errorf("from %w", err)
	}
	if f.to, err = parseBound(to, true); err != nil {
		return f, fmt.Errorf("to %w", err)
	}
	return f, nil
}

// parseBound converts a day or a moment to the form of the times in rows. In that form, the byte order is the order of the
// times. If isEnd is set and the text is a day, parseBound returns the next day, so that the whole day is selected.
func parseBound(text string, isEnd bool) (string, error) {
	if text == "" {
		return "", nil
	}
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		if isEnd {
			day = day.AddDate(0, 0, 1)
		}
		return day.Format(time.DateOnly), nil
	}
	moment, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return "", errors.New("takes a day as 2026-01-31, or a moment as 2026-01-31T12:00:00Z")
	}
	return moment.UTC().Format(timeLayout), nil
}

func (f *filter) isEmpty() bool {
	return len(f.words) == 0 && f.tag == "" && f.from == "" && f.to == "" && f.question == (questionID{})
}

// matches reports whether the filter selects a row.
func (f *filter) matches(c *columnRoles, line []byte) bool {
	// Words are checked first, because this check is cheap and rejects most rows.
	for i := range f.words {
		if !f.words[i].mayBeIn(line) {
			return false
		}
	}
	return f.matchesTime(c, line) && f.matchesTag(c, line) && f.matchesQuestion(c, line) && f.matchesWords(c, line)
}

func (f *filter) matchesTime(c *columnRoles, line []byte) bool {
	if f.from == "" && f.to == "" {
		return true
	}
	t := string(c.timeText(line))
	return t != "" && t >= f.from && (f.to == "" || t < f.to)
}

func (f *filter) matchesTag(c *columnRoles, line []byte) bool {
	if f.tag == "" {
		return true
	}
	found := false
	c.eachTag(line, func(tag []byte) bool {
		found = string(tag) == f.tag
		return !found
	})
	return found
}

func (f *filter) matchesQuestion(c *columnRoles, line []byte) bool {
	if f.question == (questionID{}) {
		return true
	}
	id, _, ok := c.questionOf(line)
	return ok && id == f.question
}

// matchesWords reports whether every word occurs in some text column of the row.
func (f *filter) matchesWords(c *columnRoles, line []byte) bool {
	if len(f.words) == 0 {
		return true
	}
	texts := make([][]byte, 0, 8)
	for _, column := range c.texts {
		if v := c.value(line, column); len(v) > 2 && v[0] == '"' {
			texts = append(texts, v)
		}
	}
	for i := range f.words {
		if !f.words[i].isInAny(texts) {
			return false
		}
	}
	return true
}
