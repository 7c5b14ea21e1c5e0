package web

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
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
	a := h.readSummary(t)
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

// readSummary waits until the counts of the summary belong to the current state, and returns the summary.
func (h *harness) readSummary(t *testing.T) summary {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		w := h.do("GET", "/api/summary")
		var s summary
		if err := json.Unmarshal(w.Body.Bytes(), &s); err != nil || w.Code != 200 {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
		if s.Current {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatal("never current")
		}
	}
}

// TestSummaryEndsWithTheNewestVote checks that the last day of the summary is today. If all votes until today are older than
// the summary's period, the last day must be the day of the newest of them. Votes in the future do not count.
func TestSummaryEndsWithTheNewestVote(t *testing.T) {
	r := fiveVotes(t)
	r.vote(6, "a", "b", `{Incorrect}`, "", "2027-06-02 00:00:00") // later than all days below, so this vote is always in the future
	r.vote(7, "a", "b", `{Incorrect}`, "", "infinity")
	r.vote(8, "a", "b", `{Incorrect}`, "", "-infinity")
	r.commit()
	h := newTableHarness(t, r, nil)
	table, _ := h.votes.tables.current(nil)
	for day, want := range map[string]dayCount{
		"2027-06-01": {"2026-01-03", 1, 0, 0},
		"2026-01-03": {"2026-01-03", 1, 0, 0},
		"2026-01-04": {"2026-01-04", 0, 0, 0},
		"2025-12-31": {"2025-12-31", 0, 0, 0}, // seen from this day, all votes are in the future
	} {
		today, err := time.Parse(time.DateOnly, day)
		if err != nil {
			t.Fatal(err)
		}
		counts := countVotes(table, today, nil)
		if last := counts.days[summaryDays-1]; len(counts.days) != summaryDays || last != want {
			t.Errorf("on %s: %+v", day, last)
		}
	}
}

// TestSummaryCountsTagsPerWeek checks that tags are counted per week of seven days. The last week ends with the last day of
// the period.
func TestSummaryCountsTagsPerWeek(t *testing.T) {
	r := newRowsTable(t, votesShape())
	today := time.Date(2026, 11, 26, 0, 0, 0, 0, time.UTC)
	id := 0
	add := func(tags string, daysAgo, votes int) {
		for range votes {
			id++
			r.vote(id, "q", "a", tags, "", today.AddDate(0, 0, -daysAgo).Format("2006-01-02 15:04:05"))
		}
	}
	add("{Incorrect}", 0, 3)
	add(`{Incorrect,"Looks Good"}`, 6, 2)
	add("{Incorrect}", 7, 5)
	add("{Late}", summaryDays-1, 1)
	add("{Late}", summaryDays, 7) // one day before the first week begins
	for i := range weeklyTags {
		add(fmt.Sprintf("{rare %d}", i), 1, 1)
	}
	r.commit()
	h := newTableHarness(t, r, nil)
	table, _ := h.votes.tables.current(nil)
	counts := countVotes(table, today, nil)
	var got []string
	for _, tag := range counts.tagWeeks[:3] {
		got = append(got, fmt.Sprint(tag))
	}
	want := []string{"{Incorrect false [0 0 0 0 0 0 0 0 0 0 0 5 5]}", "{Looks Good true [0 0 0 0 0 0 0 0 0 0 0 0 2]}", "{Late false [1 0 0 0 0 0 0 0 0 0 0 0 0]}"}
	if !slices.Equal(got, want) || len(counts.tagWeeks) != weeklyTags {
		t.Errorf("%d tags: %q", len(counts.tagWeeks), got)
	}
	if counts.tags[0] != (tagCount{"Incorrect", 10, false}) || counts.tags[1] != (tagCount{"Late", 8, false}) {
		t.Errorf("all votes: %+v", counts.tags)
	}
}

// TestSummaryOfHugeTexts checks that the size of the summary stays bounded, however long the texts of users are.
func TestSummaryOfHugeTexts(t *testing.T) {
	t.Parallel()
	r := newRowsTable(t, votesShape())
	long := strings.Repeat("x\"\\\n\x01é", 4000)
	quoted := strings.ReplaceAll(strings.ReplaceAll(long, `\`, `\\`), `"`, `\"`)
	for i := range 5 {
		r.vote(i, fmt.Sprint(i)+long, "a", fmt.Sprintf(`{Incorrect,"%d%s"}`, i, quoted), "", "2026-01-01 08:00:00")
	}
	r.vote(5, strings.Repeat("without escapes ", 1000), "a", "{Incorrect}", "", "2026-01-01 08:00:00")
	r.commit()
	h := newTableHarness(t, r, nil)
	s := h.readSummary(t)
	if len(s.Questions) != 6 || len(s.Tags) != 1 || s.Tags[0].Count != 6 {
		t.Errorf("%d questions, tags %+v", len(s.Questions), s.Tags)
	}
	for _, q := range s.Questions {
		if len(q.Text) > maxQuestionBytes || !strings.HasSuffix(q.Text, " …") || !utf8.ValidString(q.Text) {
			t.Errorf("a text of %d bytes", len(q.Text))
		}
	}
	if size := h.do("GET", "/api/summary").Body.Len(); size > 100_000 {
		t.Errorf("%d bytes", size)
	}
}
