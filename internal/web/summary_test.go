package web

import (
	"encoding/json"
	"testing"
	"time"
)

func TestSummary(t *testing.T) {
	r := fiveVotes(t)
	today := time.Now().UTC().Format(time.DateOnly)
	r.vote(6, "a", "b", `{"looks good, really",Incorrect}`, "", today+" 00:00:00")
	r.vote(7, "a", "b", `{Incorrect}`, "", today+" 00:00:00")
	r.vote(8, "a", "b", `{}`, "", today+" 00:00:00")
	r.vote(9, "a", "b", `{}`, "", "infinity")
	r.commit()
	h := newTableHarness(t, r, nil)
	var a summary
	read := func() {
		t.Helper()
		w := h.do("GET", "/api/summary")
		a = summary{}
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		if read(); a.Current {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("never current")
		}
	}
	if a.Title != "Feedback in votes" || a.Rows != 9 || len(a.Days) != summaryDays || a.Status.State != "following" {
		t.Errorf("%+v", a)
	}
	if last := a.Days[summaryDays-1]; last != (dayCount{today, 3, 1, 1}) {
		t.Errorf("today: %+v", last)
	}
	if len(a.Tags) != 4 || a.Tags[0] != (tagCount{"Incorrect", 4, false}) || a.Untagged != 4 {
		t.Errorf("tags: %+v, untagged %d", a.Tags, a.Untagged)
	}
	roles := map[string]role{}
	for _, c := range a.Columns {
		roles[c.Name] = c.Role
	}
	for name, want := range map[string]role{"user_query": roleQuestion, "bot_response": roleAnswer, "comment": roleComment,
		"feedback_tags": roleTags, "timestamp": roleTime, "citations": roleCitations, "evaluation_json": "", "vote_id": ""} {
		if roles[name] != want {
			t.Errorf("%s is %q, want %q", name, roles[name], want)
		}
	}
	if !a.Columns[0].Key || a.Columns[1].Key {
		t.Error("vote_id is the key")
	}
}

// If all votes are old, the days end with the day of the newest vote.
func TestSummaryEndsWithTheNewestVote(t *testing.T) {
	r := fiveVotes(t)
	h := newTableHarness(t, r, nil)
	table, _ := h.votes.tables.current(nil)
	days := countVotes(table, nil).lastDays(time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC))
	if last := days[summaryDays-1]; last.Day != "2026-01-03" || last.Total != 1 {
		t.Errorf("%+v", last)
	}
}
