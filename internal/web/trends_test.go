package web

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"capture/internal/pgserver"
)

// TestPageShowsTrends checks that the page shows the questions with negative votes, and the tags per week. A click on a
// question or a tag must show its votes.
func TestPageShowsTrends(t *testing.T) {
	if testing.Short() {
		t.Skip("drives Chromium for seconds")
	}
	t.Parallel()
	l := runLive(t, pgserver.Database(t), createVotes, "votes", nil)
	const rightToLeft = "أين خطة الشبكة؟"
	insert := func(question, tags string, daysAgo, votes int) {
		l.exec(`INSERT INTO votes (user_query, feedback_tags, "timestamp") SELECT $1, $2::text[], (now() AT TIME ZONE 'UTC') - make_interval(days => $3) FROM generate_series(1, $4)`,
			question, tags, daysAgo, votes)
	}
	insert("Where is the constructor?", "{Incorrect}", 0, 2)
	insert("where is   THE constructor", "{Incorrect,<b>Late</b>}", 8, 3)
	insert("Where is the constructor ?!", "{Looks Good}", 3, 4)
	insert(rightToLeft, "{__proto__}", 1, 2)
	insert(`<img src=x onerror="document.title='taken'">`, "{Incorrect}", 0, 1)
	insert("Fine", "{Looks Good}", 0, 60)
	l.waitReady()
	p := openTab(t, phone.darkMode(), l.url())
	p.waitFor(`document.querySelectorAll("#questions button").length === 3 && document.querySelectorAll("#tag-weeks tbody tr").length === 4`)
	questions := strings.Split(strings.ReplaceAll(p.text("#questions"), "\u00a0", " "), "\n")
	today := time.Now().UTC()
	if got := strings.Join(questions[:2], "|"); got != "Where is the constructor?|5 of 9 tagged votes negative (56 %) · last on "+today.Format(time.DateOnly) {
		t.Errorf("the first question reads %q", got)
	}
	if got := p.eval(`getComputedStyle([...document.querySelectorAll(".question-text")].find((e) => e.innerText.startsWith("أ"))).direction`); got != "rtl" {
		t.Errorf("a question in Arabic runs %v", got)
	}
	rows := fmt.Sprint(p.eval(`[...document.querySelectorAll("#tag-weeks tbody tr")].map((tr) => tr.innerText.replace(/\s+/g, " ").trim() + " " + tr.querySelector("[role=img]").ariaLabel)`))
	start := today.AddDate(0, 0, 1-summaryDays).Format(time.DateOnly)
	want := "Looks Good 0 64 Votes per week from " + start + " to " + today.Format(time.DateOnly) + ": 0; 0; 0; 0; 0; 0; 0; 0; 0; 0; 0; 0; 64 Incorrect 3 3"
	if !strings.HasPrefix(rows, "["+want) || !strings.Contains(rows, "<b>Late</b> 3 0") || !strings.Contains(rows, "__proto__ 0 2") {
		t.Errorf("the tags read %s", rows)
	}
	p.screenshot("trends")

	p.click("#questions li:first-child button")
	p.waitFor(`document.querySelectorAll("#votes li").length === 9 && document.querySelector("#questions button").ariaPressed === "true"`)
	if got := p.text("#question-text"); got != "Where is the constructor?" {
		t.Errorf("the filter names %q", got)
	}
	p.screenshot("one-question")
	p.reload() // the page's address contains the question, so the filter stays
	p.waitFor(`document.querySelectorAll("#votes li").length === 9 && document.querySelector("#question-text").innerText === "Where is the constructor?"`)
	p.click("#question-remove")
	p.waitFor(`document.querySelectorAll("#votes li").length === 50 && document.querySelector("#question-field").hidden`)
	p.click(`#tag-weeks button[data-tag="Incorrect"]`)
	p.waitFor(`document.querySelectorAll("#votes li").length === 3 && document.querySelector("#from").value === "` + today.AddDate(0, 0, -6).Format(time.DateOnly) + `"`)
	p.click("#clear")
	p.waitFor(`document.querySelectorAll("#votes li").length === 50 && document.querySelector("#from").value === ""`)

	// New votes change the questions and the tags.
	insert(rightToLeft, "{__proto__}", 0, 10)
	p.waitFor(`document.querySelector("#questions li:first-child").innerText.replaceAll("\u00a0", " ").includes("12 of 12 tagged votes negative (100 %)")`)
	p.waitFor(`[...document.querySelectorAll("#tag-weeks tbody tr")].some((tr) => tr.innerText.replace(/\s+/g, " ").trim() === "__proto__ 0 12")`)

	// The short list has the five worst questions, and also the selected question if it is not one of the five. A button shows
	// all other questions.
	for _, question := range []string{"Four", "Five", "Six"} {
		insert(question, "{Incorrect}", 20, 1)
	}
	p.waitFor(`document.querySelectorAll("#questions button").length === 5 && document.querySelector("#questions-more").innerText === "Show 1 more"`)
	p.click("#questions-more")
	p.waitFor(`document.querySelectorAll("#questions button").length === 6 && document.querySelector("#questions-more").innerText === "Show fewer"`)
	p.click("#questions li:last-child button")
	p.waitFor(`document.querySelectorAll("#votes li").length === 1 && document.querySelector("#questions-more").hidden`)
	p.reload()
	p.waitFor(`document.querySelectorAll("#questions button").length === 6 && document.querySelector("#questions-more").hidden`)
	p.click("#question-remove")
	p.waitFor(`document.querySelectorAll("#questions button").length === 5 && document.querySelector("#questions-more").innerText === "Show 1 more"`)
	if p.eval("document.documentElement.scrollWidth <= 390") != true {
		t.Error("the page is wider than the screen")
	}
	for name, script := range map[string]string{"too little contrast": contrast, "controls without a name": unnamed} {
		if bad, _ := p.eval(script).(string); bad != "" {
			t.Errorf("%s: %s", name, bad)
		}
	}
	p.check(l.host)
}
