package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// line is one of the table's: a figure of capture or of another program, and what it is measured against.
type line struct {
	what  string // "" for the same as above
	by    string // who did it
	bench string
	unit  string // of the figure, as the benchmark reports it
	floor string // unit of what it is measured against; "" where the figure is a ratio already
	than  string // what that is
	aim   float64
	less  bool // the ratio is to be at most the aim; else at least
}

// The aims are those that capture was built to.
var lines = []line{
	{"First copy of the table to a durable file, from the start of the process", "capture", "FirstCopy", "capture-s", "COPY-s", "COPY in binary to nothing", 1, true},
	{"", "pg_dump to nothing", "FirstCopy", "pg_dump-s", "COPY-s", "COPY in binary to nothing", 0, true},
	{"", "psql, COPY of row_to_json to nothing", "FirstCopy", "row_to_json-s", "COPY-s", "COPY in binary to nothing", 0, true},
	{"", "Python: SELECT *, json.dump", "FirstCopy", "python-s", "COPY-s", "COPY in binary to nothing", 0, true},
	{"Stream of 3 kB votes, one a transaction", "capture", "Stream/long/tx=single", "capture-rows/s", "pgoutput-rows/s", "pg_recvlogical to nothing", 0.95, false},
	{"Stream, 100 a transaction", "capture", "Stream/long/tx=hundreds", "capture-rows/s", "pgoutput-rows/s", "pg_recvlogical to nothing", 0.95, false},
	{"", "wal2json to nothing", "Stream/long/tx=hundreds", "wal2json-rows/s", "pgoutput-rows/s", "pg_recvlogical to nothing", 0, false},
	{"", "decoderbufs to nothing", "Stream/long/tx=hundreds", "decoderbufs-rows/s", "pgoutput-rows/s", "pg_recvlogical to nothing", 0, false},
	{"", "Node.js: pg-logical-replication, JSON.stringify", "Stream/long/tx=hundreds", "node-rows/s", "pgoutput-rows/s", "pg_recvlogical to nothing", 0, false},
	{"", "Go: go-pq-cdc, json.Marshal", "Stream/long/tx=hundreds", "go-pq-cdc-rows/s", "pgoutput-rows/s", "pg_recvlogical to nothing", 0, false},
	{"", "Go: pgstream's listener, json.Marshal", "Stream/long/tx=hundreds", "pgstream-rows/s", "pgoutput-rows/s", "pg_recvlogical to nothing", 0, false},
	{"", "Go: Conduit's Postgres connector, json.Marshal", "Stream/long/tx=hundreds", "conduit-rows/s", "pgoutput-rows/s", "pg_recvlogical to nothing", 0, false},
	{"Stream, all in one transaction", "capture", "Stream/long/tx=whole", "capture-rows/s", "pgoutput-rows/s", "pg_recvlogical to nothing", 0.95, false},
	{"Stream of 1 kB votes, one a transaction", "capture", "Stream/short/tx=single", "capture-rows/s", "pgoutput-rows/s", "pg_recvlogical to nothing", 0.95, false},
	{"Stream of 1 kB votes, 100 a transaction", "capture", "Stream/short/tx=hundreds", "capture-rows/s", "pgoutput-rows/s", "pg_recvlogical to nothing", 0.95, false},
	{"Writing the whole file", "capture", "WholeWrite", "capture-ms", "plain-ms", "writing and syncing the bytes plainly", 1.15, true},
	{"SHA-256 of those bytes, on one processor", "Go", "WholeWrite", "sha256-ms", "plain-ms", "writing and syncing them plainly", 0, true},
	{"Writing the file after a change of the newest row, 1,000 rows", "capture", "OneChange/small", "newest-ms", "plain-ms", "writing and syncing all bytes plainly", 0, true},
	{"The same, all rows: the first change after the start, of any row", "capture", "OneChange/large", "first-ms", "plain-ms", "writing and syncing all bytes plainly", 0, true},
	{"A later change of the newest row", "capture", "OneChange/large", "newest-ms", "plain-ms", "writing and syncing all bytes plainly", 0, true},
	{"A later change of any row", "capture", "OneChange/large", "any-ms", "plain-ms", "writing and syncing all bytes plainly", 0, true},
	{"Memory (RSS) after the first copy", "capture", "Memory", "copied/file", "", "the file's size", 1.2, true},
	{"Memory at its highest during the first copy", "capture", "Memory", "peak-of-copy/file", "", "the file's size", 0, true},
	{"Memory at its highest while 1,000 rows a second change, at random", "capture", "Memory", "paced/file", "", "the file's size", 1.2, true},
	{"The same, as many rows as the server can change", "capture", "Memory", "updates/file", "", "the file's size", 1.2, true},
	{"Commit to durable file at 1,000 rows, half of them", "capture", "Latency", "p50-ms", "floor-p50-ms", "the delay and a plain write", 1.5, true},
	{"Commit to durable file, 99 of 100", "capture", "Latency", "p99-ms", "floor-p99-ms", "the delay and a plain write", 1.5, true},
	{"The application's inserts, 8 clients, durable commits", "with capture (logical)", "Inserts/synchronous", "logical-inserts/s", "none-inserts/s", "without capture", 0.95, false},
	{"", "with capture (logical)", "Inserts/synchronous", "logical-inserts/s", "recvlogical-inserts/s", "with pg_recvlogical to nothing", 1, false},
	{"", "with pg_recvlogical to nothing", "Inserts/synchronous", "recvlogical-inserts/s", "none-inserts/s", "without", 0, false},
	{"", "with capture (notify)", "Inserts/synchronous", "notify-inserts/s", "none-inserts/s", "without capture", 0, false},
	{"The same with synchronous_commit off", "with capture (logical)", "Inserts/asynchronous", "logical-inserts/s", "none-inserts/s", "without capture", 0, false},
	{"", "with capture (logical)", "Inserts/asynchronous", "logical-inserts/s", "recvlogical-inserts/s", "with pg_recvlogical to nothing", 1, false},
	{"", "with pg_recvlogical to nothing", "Inserts/asynchronous", "recvlogical-inserts/s", "none-inserts/s", "without", 0, false},
}

// absent are programs for the same job that have no figures, and why.
var absent = [][2]string{
	{"wal-listener", "not built: when this was written, the module proxy had no version of it"},
	{"Redpanda Connect", "not built: its licence is not an open one"},
	{"Debezium", "not built: it needs Maven"},
}

// table is what was found, in Markdown, with medians and in brackets the least and the most of the runs.
func table(found results) string {
	var t strings.Builder
	t.WriteString("| what | by | figure | against | ratio | aim |\n| --- | --- | --- | --- | --- | --- |\n")
	for _, l := range lines {
		figures := found[l.bench][l.unit]
		if len(figures) == 0 {
			fmt.Fprintf(&t, "| %s | %s | not measured here | | | |\n", l.what, l.by)
			continue
		}
		ratio := median(figures)
		figure, against := span(figures, l.unit), l.than
		if l.floor != "" {
			floor := found[l.bench][l.floor]
			if len(floor) == 0 {
				fmt.Fprintf(&t, "| %s | %s | %s | not measured here: %s | | |\n", l.what, l.by, figure, l.than)
				continue
			}
			ratio /= median(floor)
			against += ": " + span(floor, l.floor)
		}
		fmt.Fprintf(&t, "| %s | %s | %s | %s | %.2f | %s |\n", l.what, l.by, figure, against, ratio, l.judged(ratio))
	}
	for _, a := range absent {
		fmt.Fprintf(&t, "| | %s | %s | | | |\n", a[0], a[1])
	}
	return t.String()
}

// judged is the aim, and whether the ratio reaches it.
func (l line) judged(ratio float64) string {
	if l.aim == 0 {
		return ""
	}
	word, reached := "at least", ratio >= l.aim
	if l.less {
		word, reached = "at most", ratio <= l.aim
	}
	if !reached {
		return fmt.Sprintf("%s %.4g: **missed**", word, l.aim)
	}
	return fmt.Sprintf("%s %.4g: reached", word, l.aim)
}

func median(figures []float64) float64 {
	sorted := slices.Sorted(slices.Values(figures))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// span is the median of figures with their unit, and between which two they lie.
func span(figures []float64, unit string) string {
	switch {
	case strings.HasSuffix(unit, "-s"):
		unit = " s"
	case strings.HasSuffix(unit, "-ms"):
		unit = " ms"
	case strings.HasSuffix(unit, "/s"):
		unit = " " + unit[strings.LastIndexByte(unit, '-')+1:]
	default:
		unit = " ×"
	}
	return fmt.Sprintf("%s%s (%s–%s)", number(median(figures)), unit, number(slices.Min(figures)), number(slices.Max(figures)))
}

// number has three digits that count, and commas between thousands.
func number(f float64) string {
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
