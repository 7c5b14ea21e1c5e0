package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// comparison is a row of the table in docs/performance.md: a figure of capture or of another program, and the baseline for it.
type comparison struct {
	subject   string // "" means the subject of the row above
	program   string
	benchmark string
	unit      string // unit of the figure in the benchmark's output
	baseline  baseline
	aim       aim
}

// baseline is what a comparison compares capture with. A comparison divides its own figure by the benchmark's figure in this
// unit. The unit is "" if the comparison's own figure is already a ratio.
type baseline struct{ unit, name string }

var (
	vsBinaryCopy   = baseline{"COPY-s", "COPY in binary to nothing"}
	vsRecvlogical  = baseline{"pgoutput-rows/s", "pg_recvlogical to nothing"}
	vsPlainWrite   = baseline{"plain-ms", "writing and syncing the bytes plainly"}
	vsPlainRewrite = baseline{"plain-ms", "writing and syncing all bytes plainly"}
	vsFileSize     = baseline{"", "the file's size"}
	vsCopyTime     = baseline{"copy-s", "a copy of the whole table"}
	vsCopyBytes    = baseline{"copy-MB", "a copy of the whole table"}
	vsCopyFrom     = baseline{"psql-s", "psql, \\copy of the same rows"}
	vsNoFollower   = baseline{"none-inserts/s", "without a follower"}
	vsRecvFollower = baseline{"recvlogical-inserts/s", "with pg_recvlogical to nothing"}
	vsCopyDelay    = baseline{"delay-s", "the delay from a change to its upload"}
	vsFileRestore  = baseline{"delay-and-file-restore-s", "the delay, and a restore of the file"}
)

// aim is the ratio that capture was built to reach. The zero value means that there is no aim.
type aim struct {
	ratio   float64
	atLeast bool // whether ratio is the minimum; otherwise it is the maximum
}

func atLeast(ratio float64) aim { return aim{ratio, true} }

func atMost(ratio float64) aim { return aim{ratio, false} }

var comparisons = []comparison{
	{"First copy of the table to a durable file, from the start of the process", "capture", "FirstCopy", "capture-s", vsBinaryCopy, atMost(1)},
	{"", "pg_dump to nothing", "FirstCopy", "pg_dump-s", vsBinaryCopy, aim{}},
	{"", "psql, COPY of row_to_json to nothing", "FirstCopy", "row_to_json-s", vsBinaryCopy, aim{}},
	{"", "Python: SELECT *, json.dump", "FirstCopy", "python-s", vsBinaryCopy, aim{}},
	{"Stream of 3 kB votes, one a transaction", "capture", "Stream/long/tx=single", "capture-rows/s", vsRecvlogical, atLeast(0.95)},
	{"Stream, 100 a transaction", "capture", "Stream/long/tx=hundreds", "capture-rows/s", vsRecvlogical, atLeast(0.95)},
	{"", "wal2json to nothing", "Stream/long/tx=hundreds", "wal2json-rows/s", vsRecvlogical, aim{}},
	{"", "decoderbufs to nothing", "Stream/long/tx=hundreds", "decoderbufs-rows/s", vsRecvlogical, aim{}},
	{"", "Node.js: pg-logical-replication, JSON.stringify", "Stream/long/tx=hundreds", "node-rows/s", vsRecvlogical, aim{}},
	{"", "Go: go-pq-cdc, json.Marshal", "Stream/long/tx=hundreds", "go-pq-cdc-rows/s", vsRecvlogical, aim{}},
	{"", "Go: pgstream's listener, json.Marshal", "Stream/long/tx=hundreds", "pgstream-rows/s", vsRecvlogical, aim{}},
	{"", "Go: Conduit's Postgres connector, json.Marshal", "Stream/long/tx=hundreds", "conduit-rows/s", vsRecvlogical, aim{}},
	{"Stream, all in one transaction", "capture", "Stream/long/tx=whole", "capture-rows/s", vsRecvlogical, atLeast(0.95)},
	{"Stream of 1 kB votes, one a transaction", "capture", "Stream/short/tx=single", "capture-rows/s", vsRecvlogical, atLeast(0.95)},
	{"Stream of 1 kB votes, 100 a transaction", "capture", "Stream/short/tx=hundreds", "capture-rows/s", vsRecvlogical, atLeast(0.95)},
	{"Reconnect, nothing changed: time until the table is followed again", "capture", "Reconnect/none", "capture-s", vsCopyTime, aim{}},
	{"The same: bytes from the server", "capture", "Reconnect/none", "capture-MB", vsCopyBytes, aim{}},
	{"The same: memory (RSS) at its highest", "capture", "Reconnect/none", "peak/file", vsFileSize, atMost(1.2)},
	{"Reconnect, 1 % of the rows changed: time until the table is followed again", "capture", "Reconnect/1%", "capture-s", vsCopyTime, aim{}},
	{"", "Go: go-pq-cdc, from a permanent slot", "Reconnect/1%", "go-pq-cdc-s", vsCopyTime, aim{}},
	{"The same: bytes from the server", "capture", "Reconnect/1%", "capture-MB", vsCopyBytes, aim{}},
	{"", "Go: go-pq-cdc, from a permanent slot", "Reconnect/1%", "go-pq-cdc-MB", vsCopyBytes, aim{}},
	{"The same: memory (RSS) at its highest", "capture", "Reconnect/1%", "peak/file", vsFileSize, atMost(1.2)},
	{"Reconnect, 10 % changed: time until the table is followed again", "capture", "Reconnect/10%", "capture-s", vsCopyTime, aim{}},
	{"", "Go: go-pq-cdc, from a permanent slot", "Reconnect/10%", "go-pq-cdc-s", vsCopyTime, aim{}},
	{"The same: bytes from the server", "capture", "Reconnect/10%", "capture-MB", vsCopyBytes, aim{}},
	{"", "Go: go-pq-cdc, from a permanent slot", "Reconnect/10%", "go-pq-cdc-MB", vsCopyBytes, aim{}},
	{"The same: memory (RSS) at its highest", "capture", "Reconnect/10%", "peak/file", vsFileSize, aim{}},
	{"Reconnect, 50 % changed: time until the table is followed again", "capture", "Reconnect/50%", "capture-s", vsCopyTime, aim{}},
	{"", "Go: go-pq-cdc, from a permanent slot", "Reconnect/50%", "go-pq-cdc-s", vsCopyTime, aim{}},
	{"The same: bytes from the server", "capture", "Reconnect/50%", "capture-MB", vsCopyBytes, aim{}},
	{"", "Go: go-pq-cdc, from a permanent slot", "Reconnect/50%", "go-pq-cdc-MB", vsCopyBytes, aim{}},
	{"The same: memory (RSS) at its highest", "capture", "Reconnect/50%", "peak/file", vsFileSize, aim{}},
	{"Writing the whole file", "capture", "WholeWrite", "capture-ms", vsPlainWrite, atMost(1.15)},
	{"SHA-256 of those bytes, on one processor", "Go", "WholeWrite", "sha256-ms", vsPlainWrite, aim{}},
	{"Writing the file after a change of the newest row, 1,000 rows", "capture", "OneChange/small", "newest-ms", vsPlainRewrite, aim{}},
	{"The same, all rows: the first change after the start, of any row", "capture", "OneChange/large", "first-ms", vsPlainRewrite, aim{}},
	{"A later change of the newest row", "capture", "OneChange/large", "newest-ms", vsPlainRewrite, aim{}},
	{"A later change of any row", "capture", "OneChange/large", "any-ms", vsPlainRewrite, aim{}},
	{"Memory (RSS) after the first copy", "capture", "Memory", "copied/file", vsFileSize, atMost(1.2)},
	{"Memory at its highest during the first copy", "capture", "Memory", "peak-of-copy/file", vsFileSize, aim{}},
	{"Memory at its highest while 1,000 rows a second change, at random", "capture", "Memory", "paced/file", vsFileSize, atMost(1.2)},
	{"The same, as many rows as the server can change", "capture", "Memory", "updates/file", vsFileSize, atMost(1.2)},
	{"Commit to durable file at 1,000 rows, half of them", "capture", "Latency", "p50-ms", baseline{"floor-p50-ms", "the delay and a plain write"}, atMost(1.5)},
	{"Commit to durable file, 99 of 100", "capture", "Latency", "p99-ms", baseline{"floor-p99-ms", "the delay and a plain write"}, atMost(1.5)},
	{"Restoring the file into an empty table", "capture", "Restore", "capture-s", vsCopyFrom, atMost(1.5)},
	{"Restoring it over the table, of which a tenth is missing and a tenth has changed", "capture", "Restore", "capture-merge-s", vsCopyFrom, aim{}},
	{"The application's inserts, 8 clients, durable commits", "with capture (logical)", "Inserts/synchronous", "logical-inserts/s", vsNoFollower, atLeast(0.95)},
	{"", "with capture (logical)", "Inserts/synchronous", "logical-inserts/s", vsRecvFollower, atLeast(1)},
	{"", "with pg_recvlogical to nothing", "Inserts/synchronous", "recvlogical-inserts/s", vsNoFollower, aim{}},
	{"", "with capture (notify)", "Inserts/synchronous", "notify-inserts/s", vsNoFollower, aim{}},
	{"The same with synchronous_commit off", "with capture (logical)", "Inserts/asynchronous", "logical-inserts/s", vsNoFollower, aim{}},
	{"", "with capture (logical)", "Inserts/asynchronous", "logical-inserts/s", vsRecvFollower, atLeast(1)},
	{"", "with pg_recvlogical to nothing", "Inserts/asynchronous", "recvlogical-inserts/s", vsNoFollower, aim{}},
	{"Copies: the file after a change of one row", "while a copy is made (S3)", "Copies/cost", "s3-write-ms", baseline{"none-write-ms", "without copies"}, aim{}},
	{"Copies: changes of a tenth of the rows, until the file has them", "while a copy is made (S3)", "Copies/cost", "s3-stream-rows/s", baseline{"none-stream-rows/s", "without copies"}, aim{}},
	{"Copies: the application's inserts, 8 clients", "while a copy is made (S3)", "Copies/cost", "s3-inserts/s", baseline{"none-inserts/s", "without copies"}, aim{}},
	{"Commit to copied, 1,000 rows", "capture, S3 (versitygw)", "Copies/time/small", "s3-copied-s", vsCopyDelay, aim{}},
	{"", "capture, Azure (Azurite)", "Copies/time/small", "azblob-copied-s", vsCopyDelay, aim{}},
	{"Commit to restored elsewhere", "capture, S3 (versitygw)", "Copies/time/small", "s3-restorable-s", vsFileRestore, aim{}},
	{"", "capture, Azure (Azurite)", "Copies/time/small", "azblob-restorable-s", vsFileRestore, aim{}},
	{"Commit to copied, all rows", "capture, S3 (versitygw)", "Copies/time/large", "s3-copied-s", vsCopyDelay, aim{}},
	{"", "capture, Azure (Azurite)", "Copies/time/large", "azblob-copied-s", vsCopyDelay, aim{}},
	{"Commit to restored elsewhere", "capture, S3 (versitygw)", "Copies/time/large", "s3-restorable-s", vsFileRestore, aim{}},
	{"", "capture, Azure (Azurite)", "Copies/time/large", "azblob-restorable-s", vsFileRestore, aim{}},
}

// absent lists the programs that also follow a table but were not measured, each with the reason.
var absent = [][2]string{
	{"wal-listener", "not built: when this was written, the module proxy had no version of it"},
	{"Redpanda Connect", "not built: its license is not an open one"},
	{"Debezium", "not built: it needs Maven"},
}

// resultTable returns the comparisons as a Markdown table.
func resultTable(found results) string {
	var t strings.Builder
	t.WriteString("| what | by | figure | against | ratio | aim |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, c := range comparisons {
		figures := found[c.benchmark][c.unit]
		if len(figures) == 0 {
			fmt.Fprintf(&t, "| %s | %s | not measured here | | | |\n", c.subject, c.program)
			continue
		}
		ratio := median(figures)
		figure, against := formatFigures(figures, c.unit), c.baseline.name
		if c.baseline.unit != "" {
			base := found[c.benchmark][c.baseline.unit]
			if len(base) == 0 {
				fmt.Fprintf(&t, "| %s | %s | %s | not measured here: %s | | |\n", c.subject, c.program, figure, c.baseline.name)
				continue
			}
			ratio /= median(base)
			against += ": " + formatFigures(base, c.baseline.unit)
		}
		fmt.Fprintf(&t, "| %s | %s | %s | %s | %.2f | %s |\n", c.subject, c.program, figure, against, ratio, c.aim.verdict(ratio))
	}
	for _, a := range absent {
		fmt.Fprintf(&t, "| | %s | %s | | | |\n", a[0], a[1])
	}
	return t.String()
}

// verdict returns a text that states the aim and whether ratio reaches the aim. It returns "" if there is no aim.
func (a aim) verdict(ratio float64) string {
	bound, reached := "at most", ratio <= a.ratio
	if a.atLeast {
		bound, reached = "at least", ratio >= a.ratio
	}
	switch {
	case a == (aim{}):
		return ""
	case !reached:
		return fmt.Sprintf("%s %.4g: **missed**", bound, a.ratio)
	}
	return fmt.Sprintf("%s %.4g: reached", bound, a.ratio)
}

func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// formatFigures formats the median, minimum and maximum of figures: "2.00 s (1.00–3.00)".
func formatFigures(figures []float64, unit string) string {
	switch {
	case strings.HasSuffix(unit, "-s"):
		unit = " s"
	case strings.HasSuffix(unit, "-ms"):
		unit = " ms"
	case strings.HasSuffix(unit, "-MB"):
		unit = " MB"
	case strings.HasSuffix(unit, "/s"):
		unit = " " + unit[strings.LastIndexByte(unit, '-')+1:]
	default:
		unit = " ×"
	}
	return fmt.Sprintf("%s%s (%s–%s)", formatNumber(median(figures)), unit, formatNumber(slices.Min(figures)), formatNumber(slices.Max(figures)))
}

// formatNumber formats a number with thousands separators. A number below 10 gets two decimals, and any other number below 100
// gets one decimal.
func formatNumber(f float64) string {
	switch {
	case f < 10:
		return strconv.FormatFloat(f, 'f', 2, 64)
	case f < 100:
		return strconv.FormatFloat(f, 'f', 1, 64)
	}
	text := strconv.FormatFloat(f, 'f', 0, 64)
	for i := len(text) - 3; i > 0; i -= 3 {
		text = text[:i] + "," + text[i:]
	}
	return text
}
