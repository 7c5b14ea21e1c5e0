package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"time"

	"capture/capture"
	"capture/internal/foreign"
)

// statusTimeout is the maximum time to wait for the daemon's response. The daemon only has to read its own memory.
const statusTimeout = 3 * time.Second

type statusCmd struct {
	outputConfig
	listenConfig
	TokenFile string `placeholder:"FILE" env:"CAPTURE_TOKEN_FILE" help:"File with the bearer token for HTTP. On a terminal, the address of the feedback page is shown with the token."`
	JSON      bool   `name:"json" help:"Print the JSON of /readyz."`
	Watch     bool   `short:"w" help:"Show the status again each second, until interrupted."`
}

func (statusCmd) Help() string {
	return "Finds the daemon through the lock file beside --output, or at --listen if there is none or it belongs to another user. Exit code 0 means that " +
		"feedback.json follows the table, so the command can be a health check. It does not connect to the database."
}

func (statusCmd) Examples() string {
	return `
	capture status
	capture status --watch
	capture status --json | jq .checks`
}

func (c statusCmd) Run(ctx context.Context, std streams) error {
	path, err := c.filePath()
	if err != nil {
		return err
	}
	if c.Watch {
		return c.watch(ctx, path, std)
	}
	return c.show(ctx, path, std)
}

// watch shows the status each second until ctx ends. On a terminal, each status replaces the one before. If the daemon does not
// answer, watch waits for it.
func (c statusCmd) watch(ctx context.Context, path string, std streams) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if isTerminal(std.out) {
			fmt.Fprint(std.out, "\x1b[H\x1b[2J") // to the upper left corner, and erase
		}
		if err := c.show(ctx, path, std); ctx.Err() != nil {
			return nil
		} else if reported := (reportedError{}); err != nil && !errors.As(err, &reported) {
			fmt.Fprintf(std.err, "capture status: %s\n", foreign.Lines(err.Error()))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// show prints the status once. It returns an error if the daemon is not ready.
func (c statusCmd) show(ctx context.Context, path string, std streams) error {
	status, raw, err := c.fetchStatus(ctx, path)
	if err != nil {
		return err
	}
	if c.JSON {
		_, err = fmt.Fprintf(std.out, "%s\n", bytes.TrimSpace(raw))
	} else {
		_, err = io.WriteString(std.out, statusText(status, paletteFor(std.out), time.Now()))
		if token, _ := tokenFile(c.TokenFile).readToken(); token != "" && isTerminal(std.out) {
			fmt.Fprintf(std.out, "  The feedback page: %s\n", c.pageAddress(token))
		}
	}
	if err == nil && !status.Ready {
		err = reportedError{errors.New("not ready")}
	}
	return err
}

// pageAddress returns the address of the feedback page on this machine, with the token in the fragment, which a browser sends
// to no server.
func (c statusCmd) pageAddress(token string) string {
	return "http://" + dialAddress(string(c.Listen), "") + "/#token=" + url.QueryEscape(token)
}

// fetchStatus requests the daemon's status. raw is the body of the response.
func (c statusCmd) fetchStatus(ctx context.Context, path string) (status capture.Status, raw []byte, err error) {
	address, held, err := findDaemon(ctx, path, string(c.Listen))
	if err != nil {
		return status, nil, err
	}
	if !held || address == "" {
		address = dialAddress(string(c.Listen), "")
	}
	code, raw, err := askDaemon(ctx, http.MethodGet, address, "/readyz", "", statusTimeout)
	switch {
	case err != nil && !held && errors.Is(err, syscall.ECONNREFUSED):
		return status, nil, fmt.Errorf("no daemon holds the lock of %s, and none listens on %s; start one with: capture run", path, address)
	case err != nil:
		return status, nil, err
	}
	if err := json.Unmarshal(raw, &status); err != nil || status.State == "" {
		return status, nil, fmt.Errorf("the server at %s is not capture: its response to GET /readyz (code %d) has no status", address, code)
	}
	return status, raw, nil
}

// statusText returns the status as text.
func statusText(s capture.Status, p palette, now time.Time) string {
	var b strings.Builder
	line := func(label, text string) {
		if text != "" {
			fmt.Fprintf(&b, "  %s%-10s%s %s\n", p.dim, label, p.off, foreign.Lines(text))
		}
	}
	ready := "ready"
	if !s.Ready {
		ready = "not ready"
	}
	fmt.Fprintf(&b, "%s %s%s%s: %s\n", p.checkMark(s.Ready), p.bold, ready, p.off, joinNonEmpty(", ", foreign.Text(s.State), "up "+spanText(now.Sub(s.Started))))
	b.WriteByte('\n')
	line("table", joinNonEmpty(" in ", s.Table, s.Database))
	line("server", joinNonEmpty(", ", withPrefix("PostgreSQL ", s.ServerVersion), withPrefix("system ", s.SystemID)))
	line("source", joinNonEmpty(" — ", s.Source, s.SourceNote))
	line("rows", joinNonEmpty(", ", countText(s.Rows), bytesText(s.Bytes), transactionsText(s.Transactions)))
	line("read", readText(s.LastRead, now))
	line("memory", memoryText(s.Memory))
	line("position", joinNonEmpty(", ", withPrefix("LSN ", s.LSN), timeAgo("committed", s.CommitTime, now)))
	line("lag", lagText(s))
	line("contact", timeAgo("last data from the server", s.LastContact, now))
	line("retry", retryText(s, now))
	b.WriteByte('\n')
	line("file", s.File.Path)
	line("", joinNonEmpty(", ", rowsText(s.File.Rows), bytesText(s.File.Bytes), withPrefix("LSN ", s.File.LSN)))
	line("written", writtenText(s.File, now))
	line("", withPrefix("last write failed: ", s.File.Error))
	line("history", keptText(s.Kept.States, s.Kept.Bytes, s.Kept.Oldest, now))
	line("copies", copiesStatusText(s.Copies, now))
	if len(s.Volumes) > 0 {
		b.WriteByte('\n')
	}
	for _, v := range s.Volumes {
		line(v.Name, fmt.Sprintf("%s, %.0f %% of its volume used, %s free", bytesText(v.Bytes), v.UsedPercent(), bytesText(v.Free)))
	}
	b.WriteByte('\n')
	for _, check := range s.Checks {
		fmt.Fprintf(&b, "  %s %-10s %s\n", p.checkMark(check.OK), foreign.Text(check.Name), foreign.Lines(check.Detail))
	}
	fmt.Fprintf(&b, "\n  %scapture %s, process %d on %s%s\n", p.dim, foreign.Text(s.Version), s.PID, foreign.Text(s.Host), p.off)
	return b.String()
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
