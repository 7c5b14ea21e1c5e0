package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestResultTable checks that the table has the medians of several runs, the ratios and the verdicts.
func TestResultTable(t *testing.T) {
	t.Parallel()
	found := make(results)
	err := found.addOutput(strings.NewReader(`goos: linux
BenchmarkFirstCopy-2   1  1 ns/op  2.0 COPY-s  3.0 capture-s
BenchmarkFirstCopy-2   1  1 ns/op  4.0 COPY-s  1.0 capture-s
BenchmarkFirstCopy-2   1  1 ns/op  2.5 COPY-s  2.0 capture-s
BenchmarkStream/long/tx=single-2  1  1 ns/op  9000 capture-rows/s  10000 pgoutput-rows/s
BenchmarkStream/long/tx=hundreds-2  1  1 ns/op  9000 pgoutput-rows/s  4500 decoderbufs-rows/s  900 node-rows/s  1800 go-pq-cdc-rows/s
BenchmarkInserts/synchronous-2  1  1 ns/op  1900 logical-inserts/s  1800 recvlogical-inserts/s  2000 none-inserts/s
BenchmarkInserts/asynchronous-2  1  1 ns/op  3600 logical-inserts/s  4000 recvlogical-inserts/s
BenchmarkMemory-2  1  1 ns/op  1.5 copied/file
PASS
`))
	if err != nil {
		t.Fatal(err)
	}
	got := resultTable(found)
	for _, want := range []string{
		"| capture | 2.00 s (1.00–3.00) | COPY in binary to nothing: 2.50 s (2.00–4.00) | 0.80 | at most 1: reached |",
		"| capture | 9,000 rows/s (9,000–9,000) | pg_recvlogical to nothing: 10,000 rows/s (10,000–10,000) | 0.90 | at least 0.95: **missed** |",
		"| capture | 1.50 × (1.50–1.50) | the file's size | 1.50 | at most 1.2: **missed** |",
		"| decoderbufs to nothing | 4,500 rows/s (4,500–4,500) | pg_recvlogical to nothing: 9,000 rows/s (9,000–9,000) | 0.50 |  |",
		"| Node.js: pg-logical-replication, JSON.stringify | 900 rows/s (900–900) | pg_recvlogical to nothing: 9,000 rows/s (9,000–9,000) | 0.10 |  |",
		"| Go: go-pq-cdc, json.Marshal | 1,800 rows/s (1,800–1,800) | pg_recvlogical to nothing: 9,000 rows/s (9,000–9,000) | 0.20 |  |",
		"| with capture (logical) | 1,900 inserts/s (1,900–1,900) | without a follower: 2,000 inserts/s (2,000–2,000) | 0.95 | at least 0.95: reached |",
		"| with capture (logical) | 1,900 inserts/s (1,900–1,900) | with pg_recvlogical to nothing: 1,800 inserts/s (1,800–1,800) | 1.06 | at least 1: reached |",
		"| with capture (logical) | 3,600 inserts/s (3,600–3,600) | with pg_recvlogical to nothing: 4,000 inserts/s (4,000–4,000) | 0.90 | at least 1: **missed** |",
		"| with pg_recvlogical to nothing | 1,800 inserts/s (1,800–1,800) | without a follower: 2,000 inserts/s (2,000–2,000) | 0.90 |  |",
		"| with pg_recvlogical to nothing | 4,000 inserts/s (4,000–4,000) | not measured here: without a follower | | |",
		"| wal2json to nothing | not measured here |",
		"| pg_dump to nothing | not measured here |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the table lacks %q", want)
		}
	}
	if t.Failed() {
		t.Log(got)
	}
}

// TestReplaceTable checks that docs/performance.md has a place for the table, and that the table of a second run replaces
// the table of the first run.
func TestReplaceTable(t *testing.T) {
	t.Parallel()
	content, err := os.ReadFile("../../docs/performance.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := filepath.Join(t.TempDir(), "performance.md")
	if err := os.WriteFile(doc, content, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"first figures\n", "second figures\n"} {
		if err := replaceTable(doc, text); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(doc)
	if err != nil {
		t.Fatal(err)
	}
	before, _, _ := strings.Cut(string(content), tableBegins)
	_, after, _ := strings.Cut(string(content), tableEnds)
	if want := before + tableBegins + "\nsecond figures\n\n" + tableEnds + after; string(got) != want {
		t.Errorf("the documentation is now\n%s", got)
	}
}
