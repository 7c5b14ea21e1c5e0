package web

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"capture/snapshot/rowjson"
)

type votesAnswer struct {
	Version, Total, Scanned int
	Next                    *string
	Rows                    []struct {
		Key string
		Row json.RawMessage
	}
}

func (a votesAnswer) keys() string {
	var keys []string
	for _, r := range a.Rows {
		keys = append(keys, r.Key)
	}
	return strings.Join(keys, " ")
}

func (h *harness) getVotes(t *testing.T, query string) votesAnswer {
	t.Helper()
	w := h.do("GET", "/api/votes?"+query)
	var a votesAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 {
		t.Fatalf("/api/votes?%s: %d %s: %v", query, w.Code, w.Body, err)
	}
	return a
}

func TestVotesByFilter(t *testing.T) {
	h := newTableHarness(t, fiveVotes(t), nil)
	for _, c := range []struct{ query, keys string }{
		{"", "4 3 2 1 5"}, // vote 5 has no time, so it comes last
		{"limit=2", "4 3"},
		{"limit=2&after=4", "3 2"},
		{"after=1", "5"},
		{"after=5", ""},
		{"after=t1767398400000000:99", "4 3 2 1 5"}, // the place of vote 99, which is deleted and had the same time as vote 4
		{"after=t1767398400000000:4", "3 2 1 5"},
		{"after=t9223372036854775807:0", "4 3 2 1 5"},
		{"q=password", "4 1"},
		{"q=passWORD+policy", "4"},
		{"q=reset+thanks", "1"},
		{"q=caf%C3%A9", "2"},
		{"q=%C3%89GLISE", "2"},
		{"q=%22quoted%22", "3"},
		{`q=%5C`, "3"},
		{"q=nnext", ""}, // the n of the escape \n is not part of a word
		{"q=next", "2"},
		{"q=12345678901234567890", ""}, // numbers are not searched
		{"q=user_query", ""},           // the names of columns are not searched, either
		{"q=%3Cscript%3E", "5"},
		{"tag=Incorrect", "2 5"},
		{"tag=Incorrec", ""},
		{"tag=Too+%22long%22", "2"},
		{"tag=Looks+Good+-+Accurate", "1"},
		{"from=2026-01-02", "4 3 2"},
		{"to=2026-01-02", "3 2 1"},
		{"from=2026-01-02&to=2026-01-02", "3 2"},
		{"from=2026-01-02T12:00:00Z&to=2026-01-03T00:00:00Z", "3"},
		{"from=2026-01-02T13:00:00%2B01:00", "4 3"},
		{"q=password&from=2026-01-02", "4"},
	} {
		if got := h.getVotes(t, c.query).keys(); got != c.keys {
			t.Errorf("%s: %q, want %q", c.query, got, c.keys)
		}
	}
	a := h.getVotes(t, "limit=2")
	if a.Total != 5 || a.Next == nil || *a.Next != "t1767398399999999:3" {
		t.Errorf("first page: %+v", a)
	}
	if a = h.getVotes(t, "limit=4&after=4"); a.Next != nil {
		t.Errorf("last page goes on at %s", *a.Next)
	}
	if !bytes.Contains(h.getVotes(t, "limit=1&after=2").Rows[0].Row, []byte("12345678901234567890")) {
		t.Error("a number's digits were changed")
	}
	for _, query := range []string{"limit=0", "limit=501", "limit=x", "after=x", "after=99", "after=1,2", "from=yesterday", "to=2026-13-01",
		"q=" + strings.Repeat("x", maxQueryBytes+1), "q=%FF", "q=" + strings.Repeat("x+", maxQueryWords+1)} {
		w := h.do("GET", "/api/votes?"+query)
		if w.Code != 400 {
			t.Errorf("%s: %d", query, w.Code)
		}
		errorText(t, w)
	}
}

func TestVoteByKey(t *testing.T) {
	h := newTableHarness(t, fiveVotes(t), nil)
	w := h.do("GET", "/api/votes/4")
	if w.Code != 200 || !strings.HasPrefix(w.Body.String(), `{"key":"4","next":"t1767398400000000:4","row":{"vote_id":4,`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, key := range []string{"99", "x", "04", "4%2F", "(4)", "%22"} {
		if w = h.do("GET", "/api/votes/"+key); w.Code != 404 {
			t.Errorf("%s: %d", key, w.Code)
		}
		errorText(t, w)
	}
}

// TestKeysOfEveryKindLeadToTheirVotes checks that the API finds a row by the key that it returned, and that a page can begin
// after this key, whatever columns the key has.
func TestKeysOfEveryKindLeadToTheirVotes(t *testing.T) {
	shape := &rowjson.Shape{Schema: "app", Table: "notes", Fingerprint: "notes", Key: []int{1, 0}, Columns: []rowjson.Column{
		{Name: "n", TypeName: "integer", Type: intType},
		{Name: "name", TypeName: "text", Type: textType},
		{Name: "at", TypeName: "timestamp without time zone", Type: timeType},
	}}
	names := []string{"plain", "", "a b", `q"uote`, "com,ma", "(par)", "..", "/", "a/../b", "ümlaut", "%2F", `back\slash`, "1", "\n", "'"}
	for _, keys := range [][]int{{1, 0}, {1}, {2, 1}} {
		shape.Key = keys
		r := newRowsTable(t, shape)
		for i, name := range names {
			r.put(fmt.Sprint(i-3), name, "2026-01-01 00:00:0"+fmt.Sprint(i%10))
		}
		r.commit()
		h := newTableHarness(t, r, nil)
		seen, after := 0, ""
		for {
			a := h.getVotes(t, "limit=2&after="+after)
			for _, row := range a.Rows {
				seen++
				w := h.do("GET", "/api/votes/"+url.PathEscape(row.Key))
				if w.Code != 200 || !strings.Contains(w.Body.String(), string(row.Row)) {
					t.Errorf("key %v: %q: %d %s", keys, row.Key, w.Code, w.Body)
				}
			}
			if a.Next == nil {
				break
			}
			after = url.QueryEscape(*a.Next)
		}
		if seen != len(names) {
			t.Errorf("key %v: %d rows of %d by pages", keys, seen, len(names))
		}
	}
}

func TestVotesBeforeTheFirstCopy(t *testing.T) {
	h := newHarness(t, nil)
	for _, target := range []string{"/api/votes", "/api/votes/1", "/api/summary", "/api/votes.json", "/api/votes.jsonl", "/api/votes.csv"} {
		w := h.do("GET", target)
		if w.Code != 503 {
			t.Errorf("%s: %d", target, w.Code)
		}
		errorText(t, w)
	}
}
