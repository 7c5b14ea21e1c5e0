package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"time"

	"capture/internal/foreign"
)

// printJSON prints v as JSON that is safe to display, and a line break. Every --json uses it. If indent is not "", each value is
// on a line of its own.
func printJSON(w io.Writer, v any, indent string) error {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetIndent("", indent)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return err
	}
	_, err := w.Write(foreign.JSON(b.Bytes()))
	return err
}

// bytesText formats a size in Postgres' units, where 1 kB is 1024 bytes: "812 bytes", "38.2 kB", "1.0 GB".
func bytesText(n int64) string {
	if n < 1024 && n > -1024 {
		return fmt.Sprintf("%d bytes", n)
	}
	value := float64(n)
	units := []string{"kB", "MB", "GB", "TB", "PB", "EB"}
	unit := -1
	for value >= 1023.95 || value <= -1023.95 {
		value /= 1024
		unit++
	}
	return fmt.Sprintf("%.1f %s", value, units[max(unit, 0)])
}

// countText formats a number with thousands separators: "1,234,567".
func countText(n int) string {
	digits := strconv.Itoa(n)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(digits) - 3; i > start; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return digits
}

// rowsText formats a number of rows: "1 row", "1,234 rows".
func rowsText(n int) string {
	if n == 1 {
		return "1 row"
	}
	return countText(n) + " rows"
}

// spanText formats a duration in its one or two largest units: "12 ms", "4.2 s", "3 min 12 s", "2 d 5 h".
func spanText(d time.Duration) string {
	switch {
	case d < 0:
		return "0 ms"
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%d s", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%d min %d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %d min", int(d.Hours()), int(d.Minutes())%60)
	default:
		return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
	}
}

// timeText formats a time in UTC: "2026-11-23 16:00:00 UTC".
func timeText(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// clipText shortens s to at most n runes.
func clipText(s string, n int) string {
	r := []rune(s)
	if len(r) <= n {
		return s
	}
	return string(r[:n-1]) + "…"
}

// transactionsText formats a number of transactions: "1,234 transactions followed".
func transactionsText(n uint64) string {
	if n == 1 {
		return "1 transaction followed"
	}
	return countText(int(n)) + " transactions followed"
}
