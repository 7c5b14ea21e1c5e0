package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"syscall"
	"time"

	"capture/capture"
	"capture/store"
)

// statusTimeout is how long a daemon may take to say how it is: it only reads its own memory.
const statusTimeout = 3 * time.Second

type statusCmd struct {
	outputConfig
	listenConfig
	JSON bool `name:"json" help:"Print the daemon's own JSON, as /readyz gives it."`
}

func (statusCmd) Help() string {
	return "Finds the daemon by the lock beside --output, else asks at --listen. Exit 0 when feedback.json follows the " +
		"table, 1 otherwise, so that it can serve as a health check; it makes no connection to the database."
}

func (statusCmd) Examples() string {
	return `
	capture status
	capture status --json | jq .checks`
}

func (c statusCmd) Run(ctx context.Context, std streams) error {
	path, err := c.file()
	if err != nil {
		return err
	}
	status, raw, err := c.fetch(ctx, path)
	if err != nil {
		return err
	}
	if c.JSON {
		_, err = fmt.Fprintf(std.out, "%s\n", bytes.TrimSpace(raw))
	} else {
		_, err = io.WriteString(std.out, statusText(status, paletteFor(std.out), time.Now()))
	}
	if err == nil && !status.Ready {
		err = reportedError{errors.New("not ready")}
	}
	return err
}

// fetch asks the daemon how it is, and returns its answer also as it came.
func (c statusCmd) fetch(ctx context.Context, path string) (status capture.Status, raw []byte, err error) {
	owner, held, err := store.ReadOwner(path)
	if err != nil {
		return status, nil, err
	}
	address := daemonAddress(owner)
	if !held || address == "" {
		address = reachable(string(c.Listen), "")
	}
	code, raw, err := ask(ctx, http.MethodGet, address, "/readyz", "", statusTimeout)
	switch {
	case err != nil && !held && errors.Is(err, syscall.ECONNREFUSED):
		return status, nil, fmt.Errorf("no daemon keeps %s, and none listens at %s; start one with: capture run", path, address)
	case err != nil:
		return status, nil, err
	}
	if err := json.Unmarshal(raw, &status); err != nil || status.State == "" {
		return status, nil, fmt.Errorf("what listens at %s is not capture: it answers %d to GET /readyz", address, code)
	}
	return status, raw, nil
}

// palette is how a terminal shows good, bad and side matters; empty strings elsewhere.
type palette struct{ good, bad, dim, bold, off string }

func paletteFor(w io.Writer) palette {
	if !isTerminal(w) || os.Getenv("NO_COLOR") != "" {
		return palette{}
	}
	return palette{good: "\x1b[32m", bad: "\x1b[31m", dim: "\x1b[2m", bold: "\x1b[1m", off: "\x1b[0m"}
}

// mark is a tick or a cross.
func (p palette) mark(ok bool) string {
	if ok {
		return p.good + "✓" + p.off
	}
	return p.bad + "✗" + p.off
}

// statusText is the status as a person reads it.
func statusText(s capture.Status, p palette, now time.Time) string {
	var b strings.Builder
	line := func(label, text string) {
		if text != "" {
			fmt.Fprintf(&b, "  %s%-10s%s %s\n", p.dim, label, p.off, text)
		}
	}
	ready := "ready"
	if !s.Ready {
		ready = "not ready"
	}
	fmt.Fprintf(&b, "%s %s%s%s: %s\n", p.mark(s.Ready), p.bold, ready, p.off, join(", ", s.State, "up "+spanText(now.Sub(s.Started))))
	b.WriteByte('\n')
	line("table", join(" in ", s.Table, s.Database))
	line("server", join(", ", prefixed("PostgreSQL ", s.ServerVersion), prefixed("system ", s.SystemID)))
	line("source", join(" — ", s.Source, s.SourceNote))
	line("rows", join(", ", countText(s.Rows), bytesText(s.Bytes), transactionsText(s.Transactions)))
	line("memory", memoryText(s.Memory))
	line("position", join(", ", prefixed("LSN ", s.LSN), ago("committed", s.CommitTime, now)))
	line("lag", lagText(s))
	line("contact", ago("heard from the server", s.LastContact, now))
	line("retry", retryText(s, now))
	b.WriteByte('\n')
	line("file", s.File.Path)
	line("", join(", ", rowsText(s.File.Rows), bytesText(s.File.Bytes), prefixed("LSN ", s.File.LSN)))
	line("written", writtenText(s.File, now))
	line("", prefixed("last write failed: ", s.File.Error))
	if len(s.Volumes) > 0 {
		b.WriteByte('\n')
	}
	for _, v := range s.Volumes {
		line(v.Name, fmt.Sprintf("%s, %.0f %% of its volume used, %s free", bytesText(v.Bytes), v.UsedPercent(), bytesText(v.Free)))
	}
	b.WriteByte('\n')
	for _, check := range s.Checks {
		fmt.Fprintf(&b, "  %s %-10s %s\n", p.mark(check.OK), check.Name, check.Detail)
	}
	fmt.Fprintf(&b, "\n  %scapture %s, process %d on %s%s\n", p.dim, s.Version, s.PID, s.Host, p.off)
	return b.String()
}

// memoryText is nothing where all rows are in memory.
func memoryText(m *capture.MemoryStatus) string {
	if m == nil || m.Spilled == 0 {
		return ""
	}
	return join(", ", bytesText(m.Resident)+" of rows in memory", bytesText(m.Spilled)+" in a file")
}

func lagText(s capture.Status) string {
	lag := "none"
	if s.LagBytes > 0 || s.LagSeconds > 0 {
		lag = join(", ", bytesText(s.LagBytes), spanText(time.Duration(s.LagSeconds*float64(time.Second))))
	}
	if s.RetainedWAL > 0 {
		lag += ", WAL held back " + bytesText(s.RetainedWAL)
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
	text := ago("", f.Written, now)
	if f.Reason != "" {
		text += " (" + f.Reason + ")"
	}
	if f.Millis > 0 {
		text += " in " + spanText(time.Duration(f.Millis*float64(time.Millisecond)))
	}
	if f.UpToDate {
		return text + ", holds the newest state"
	}
	if f.Pending != nil {
		text += ", changes wait for " + spanText(now.Sub(*f.Pending))
	}
	return text
}

// ago is "what 12 s ago", or nothing without a time.
func ago(what string, t *time.Time, now time.Time) string {
	if t == nil || t.IsZero() {
		return ""
	}
	return join(" ", what, spanText(now.Sub(*t))+" ago")
}

// prefixed is prefix and text, or nothing without a text.
func prefixed(prefix, text string) string {
	if text == "" {
		return ""
	}
	return prefix + text
}

// join puts sep between those parts that are not empty.
func join(sep string, parts ...string) string {
	kept := parts[:0]
	for _, part := range parts {
		if part != "" {
			kept = append(kept, part)
		}
	}
	return strings.Join(kept, sep)
}
