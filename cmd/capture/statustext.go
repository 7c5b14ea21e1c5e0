package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"capture/capture"
	"capture/internal/foreign"
)

// fact is a line of the status: a label and a text.
type fact struct {
	label, text string
	rank        int  // facts with a higher rank are left out first if the screen is too small
	isCheck     bool // whether the line has the mark of a check that succeeds
}

// statusText returns the status as text: whether capture is ready, then the failing checks, then the facts. If the text is
// larger than the screen, statusText leaves out the least important facts. page is the address of the feedback
// page, or "" if the text must not contain it.
//
// statusText does not wrap long lines, because a line may contain a command to paste. The terminal wraps them instead.
func statusText(s capture.Status, page string, p palette, size screen, now time.Time) string {
	facts := statusFacts(s, page, now)
	head := headText(s, p, now)
	for size.lines > 0 && len(facts) > 0 && size.height(head+factsText(facts, p)) >= size.lines {
		least := slices.MaxFunc(facts, func(a, b fact) int { return cmp.Compare(a.rank, b.rank) })
		facts = slices.DeleteFunc(facts, func(f fact) bool { return f.rank == least.rank })
	}
	return head + factsText(facts, p)
}

// headText returns lines that state whether capture is ready and which checks fail.
func headText(s capture.Status, p palette, now time.Time) string {
	var b strings.Builder
	ready := "ready"
	if !s.Ready {
		ready = "not ready"
	}
	fmt.Fprintf(&b, "%s %s%s%s: %s\n", p.checkMark(s.Ready), p.bold, ready, p.off, joinNonEmpty(", ", foreign.Text(s.State), "up "+spanText(now.Sub(s.Started))))
	for _, check := range failingChecks(s.Checks) {
		mark := p.checkMark(false)
		if slices.Contains(advice, check.Name) {
			mark = p.bold + "!" + p.off
		}
		fmt.Fprintf(&b, "%s %-10s %s\n", mark, foreign.Text(check.Name), foreign.Line(check.Detail))
	}
	return b.String()
}

var (
	// urgent lists the checks that are shown first, in this order. The first three decide whether capture is ready. While
	// the check "publication" fails, the application's writes fail.
	urgent = []string{"following", "file", "omitted", "publication", "loss", "copy"}

	// advice lists the checks that only recommend an improvement. Nobody needs to act on them at once.
	advice = []string{"role", "standbys", "encoding", "key", "fetched"}
)

// failingChecks returns the checks that fail, the most important first.
func failingChecks(checks []capture.Check) []capture.Check {
	failing := slices.DeleteFunc(slices.Clone(checks), func(c capture.Check) bool { return c.OK })
	rank := func(c capture.Check) int {
		if i := slices.Index(urgent, c.Name); i >= 0 {
			return i
		}
		// slices.Index returns -1 for a check that is not in advice. Such a check therefore comes before the checks in advice.
		return len(urgent) + 1 + slices.Index(advice, c.Name)
	}
	slices.SortStableFunc(failing, func(a, b capture.Check) int { return cmp.Compare(rank(a), rank(b)) })
	return failing
}

// factsText returns the facts as lines, after an empty line.
func factsText(facts []fact, p palette) string {
	var b strings.Builder
	b.WriteByte('\n')
	for _, f := range facts {
		if f.isCheck {
			fmt.Fprintf(&b, "%s %-10s %s\n", p.checkMark(true), foreign.Text(f.label), foreign.Line(f.text))
			continue
		}
		fmt.Fprintf(&b, "  %s%-10s%s %s\n", p.dim, f.label, p.off, foreign.Line(f.text))
	}
	return b.String()
}

// statusFacts returns the facts that are known, in the order in which they are shown.
func statusFacts(s capture.Status, page string, now time.Time) []fact {
	var facts []fact
	add := func(rank int, label, text string) {
		if text != "" {
			facts = append(facts, fact{label: label, text: text, rank: rank})
		}
	}
	add(0, "file", s.File.Path)
	if s.File.Written != nil {
		add(0, "", joinNonEmpty(", ", rowsText(s.File.Rows), bytesText(s.File.Bytes), withPrefix("LSN ", s.File.LSN)))
	}
	add(0, "written", writtenText(s.File, now))
	add(1, "retry", retryText(s, now))
	add(1, "table", joinNonEmpty(" in ", s.Table, s.Database))
	if s.Rows > 0 || s.State == "following" { // before the first copy, the row count is not known, and 0 would be wrong
		add(3, "rows", joinNonEmpty(", ", countText(s.Rows), bytesText(s.Bytes), transactionsText(s.Transactions)))
	}
	contact := timeAgo("last data from the server", s.LastContact, now)
	if s.State == "following" {
		add(3, "lag", joinNonEmpty("; ", lagText(s), contact))
	} else { // the lag is unknown
		add(3, "contact", contact)
	}
	add(8, "position", joinNonEmpty(", ", withPrefix("LSN ", s.LSN), timeAgo("committed", s.CommitTime, now)))
	add(9, "read", readText(s.LastRead, now))
	add(10, "server", joinNonEmpty(", ", withPrefix("PostgreSQL ", s.ServerVersion), withPrefix("system ", s.SystemID)))
	add(5, "memory", memoryText(s.Memory))
	add(7, "history", keptText(s.Kept.States, s.Kept.Bytes, s.Kept.Oldest, now))
	add(4, "copies", copiesStatusText(s.Copies, now))
	for _, v := range s.Volumes {
		add(11, v.Name, fmt.Sprintf("%s, %.0f %% of its volume used, %s free", bytesText(v.Bytes), v.UsedPercent(), bytesText(v.Free)))
	}
	// If the check "following" is OK, its text names the source already.
	if !slices.ContainsFunc(s.Checks, func(c capture.Check) bool { return c.Name == "following" && c.OK }) {
		add(6, "source", joinNonEmpty(" — ", s.Source, s.SourceNote))
	}
	for _, check := range s.Checks {
		if check.OK {
			facts = append(facts, fact{label: check.Name, text: check.Detail, rank: 2, isCheck: true})
		}
	}
	add(12, "capture", fmt.Sprintf("%s, process %d on %s", s.Version, s.PID, s.Host))
	add(0, "page", page)
	return facts
}

// readText describes the last read of the table.
func readText(r *capture.ReadStatus, now time.Time) string {
	if r == nil {
		return ""
	}
	what := "the whole table"
	if !r.Whole {
		what = fmt.Sprintf("%s changed and %s deleted", rowsText(int(r.Rows)), countText(int(r.Deleted)))
	}
	text := fmt.Sprintf("%s, %s in %s, %s ago", what, bytesText(r.Bytes), spanText(time.Duration(r.MS*float64(time.Millisecond))), spanText(now.Sub(r.Ended)))
	if r.Whole {
		text += " (" + foreign.Text(r.Reason) + ")"
	}
	return text
}

// memoryText returns how much of the rows is in memory and on disk. It returns "" if all rows are in memory.
func memoryText(m *capture.MemoryStatus) string {
	if m == nil || m.Spilled == 0 {
		return ""
	}
	return joinNonEmpty(", ", bytesText(m.Resident)+" of rows in memory", bytesText(m.Spilled)+" spilled to disk")
}

func lagText(s capture.Status) string {
	lag := "none"
	if s.LagBytes > 0 || s.LagSeconds > 0 {
		lag = joinNonEmpty(", ", bytesText(s.LagBytes), spanText(time.Duration(s.LagSeconds*float64(time.Second))))
	}
	if s.RetainedWAL > 0 {
		lag += ", " + bytesText(s.RetainedWAL) + " of WAL retained"
	}
	return lag
}

func retryText(s capture.Status, now time.Time) string {
	if s.NextAttempt == nil {
		return ""
	}
	return fmt.Sprintf("attempt %d in %s", s.Attempts+1, spanText(s.NextAttempt.Sub(now)))
}

func writtenText(f capture.FileStatus, now time.Time) string {
	if f.Written == nil {
		return "not yet"
	}
	text := timeAgo("", f.Written, now)
	if f.Reason != "" {
		text += " (" + f.Reason + ")"
	}
	if f.Millis > 0 {
		text += " in " + spanText(time.Duration(f.Millis*float64(time.Millisecond)))
	}
	if f.UpToDate {
		return text + ", up to date"
	}
	if f.Pending != nil {
		text += ", changes pending for " + spanText(now.Sub(*f.Pending))
	}
	return text
}

// timeAgo returns a text such as "committed 12 s ago", or "" if t is not set.
func timeAgo(what string, t *time.Time, now time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return joinNonEmpty(" ", what, spanText(now.Sub(*t))+" ago")
}

// withPrefix returns prefix followed by text, or "" if text is "".
func withPrefix(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// joinNonEmpty joins the parts that are not empty.
func joinNonEmpty(sep string, parts ...string) string {
	nonEmpty := parts[:0]
	for _, part := range parts {
		if part != "" {
			nonEmpty = append(nonEmpty, part)
		}
	}
	return strings.Join(nonEmpty, sep)
}
