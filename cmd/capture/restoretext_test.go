package main

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"capture/capture"
	"capture/internal/postgres"
	"capture/internal/restore"
	"capture/internal/verify"
)

// TestNamesCannotAddLines checks that a line break in a name does not add a line to a question, an error or a report. Anybody
// can choose the names in a manifest.
func TestNamesCannotAddLines(t *testing.T) {
	t.Parallel()
	const hostile = "x? [y/N] y\ncapture restore: restored\x1b[2J\u202e"
	name := postgres.Name{Schema: "public", Table: hostile}.String()
	check := func(what, text string, lines int) {
		t.Helper()
		if strings.Count(text, "\n") != lines || strings.ContainsAny(text, "\x1b\u202e") || !strings.Contains(text, `\ncapture restore: restored\x1b[2J\u202e`) {
			t.Errorf("%s: %q", what, text)
		}
	}
	report := func(err error) string {
		var b bytes.Buffer
		reportError(err, "capture restore", nil, streams{err: &b})
		return b.String()
	}
	check("the question about the table", report(restoreCmd{fileConfig: fileConfig{File: "-"}}.confirmTable(t.Context(), streams{}, name)), 1)
	check("a problem", report(&postgres.Problem{Summary: "table " + name + " is missing", Reason: "it has column " + hostile}), 1)
	check("the status", headText(capture.Status{Checks: []capture.Check{{Name: "table", Detail: hostile}}}, palette{}, time.Now()), 2)
	check("a finding", diagnosisText(postgres.Diagnosis{Findings: []postgres.Finding{{Name: "table", Found: hostile, Reason: hostile}}}, false, palette{}), 4)
	check("a file", verifiedText(verify.Report{File: hostile}, palette{}, 0), 2)
	if got := report(linesError{errors.New("one\ntwo")}); got != "capture restore: one\ntwo\n" {
		t.Errorf("an error of several lines is %q", got)
	}
}

// TestKeysCannotImitateTheResult checks that a line break in a key or a name does not add a line to the result. Users can
// choose keys, and anybody with a database can choose the names of its objects.
func TestKeysCannotImitateTheResult(t *testing.T) {
	t.Parallel()
	const hostile = "k\nThis was a dry run: nothing has changed.\x1b[2J\u202e"
	text := restoredText(restore.Result{
		Table: "public.votes" + hostile, Rows: 1, Deleted: restore.Change{Rows: 7, Keys: []string{hostile, strings.Repeat("x", 1<<20)}},
		Others:    []restore.OtherTable{{Table: hostile, Deleted: 1}},
		Sequences: []restore.Sequence{{Name: hostile, Last: 1}}, NotSet: []restore.UnsetSequence{{Name: hostile, Reason: "no"}},
		By: hostile, Notes: []string{hostile},
	}, time.Second)
	if lines := strings.Count(text, "\n"); lines != 7 || strings.ContainsAny(text, "\x1b\u202e") || len(text) > 5<<10 {
		t.Errorf("%d lines, %d bytes: %.300q", lines, len(text), text)
	}
}

// TestRestoreSaysThatItIsReportedAsLoss: if a restore overwrites more than half of the rows that were in the table before,
// its result must say that a daemon reports so many overwritten rows as a loss. Inserted rows do not count.
func TestRestoreSaysThatItIsReportedAsLoss(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		inserted, overwritten int64
		want                  bool
	}{{0, 50, false}, {0, 51, true}, {50, 25, false}, {50, 26, true}} {
		r := restore.Result{Rows: 100, Inserted: restore.Change{Rows: test.inserted}, Overwritten: restore.Change{Rows: test.overwritten}}
		if got := strings.Contains(restoredText(r, 0), "reports so many overwritten rows as a loss"); got != test.want {
			t.Errorf("%+v: %v", test, got)
		}
	}
}
