package web

import (
	"bytes"
	"encoding/csv"
	"slices"
	"strings"
	"testing"
)

func TestExport(t *testing.T) {
	r := fiveVotes(t)
	h := newTableHarness(t, r, nil)
	var whole bytes.Buffer
	if _, err := r.View().WriteTo(&whole); err != nil {
		t.Fatal(err)
	}
	if w := h.do("GET", "/api/votes.json"); w.Body.String() != whole.String() {
		t.Errorf("all rows as JSON: %s", w.Body)
	}
	if w := h.do("GET", "/api/votes.json?q=nowhere"); w.Body.String() != "[]\n" {
		t.Errorf("no rows: %q", w.Body)
	}
	lines := h.do("GET", "/api/votes.jsonl")
	array := strings.NewReplacer("[\n", "", "},\n", "}\n", "\n]\n", "\n").Replace(whole.String())
	if lines.Body.String() != array || lines.Header().Get("Content-Type") != "application/jsonl" || !strings.HasSuffix(lines.Header().Get("Content-Disposition"), `.jsonl"`) {
		t.Errorf("all rows as JSON lines: %v %s", lines.Header(), lines.Body)
	}
	if w := h.do("GET", "/api/votes.jsonl?q=policy"); strings.Count(w.Body.String(), "\n") != 1 || !strings.HasPrefix(w.Body.String(), `{"vote_id":4,`) {
		t.Errorf("one row as JSON lines: %q", w.Body)
	}
	if w := h.do("GET", "/api/votes.jsonl?q=nowhere"); w.Body.Len() != 0 || w.Code != 200 {
		t.Errorf("no rows as JSON lines: %d %q", w.Code, w.Body)
	}
	w := h.do("GET", "/api/votes.csv?from=2026-01-02")
	if w.Header().Get("Content-Disposition") == "" || w.Header().Get("Content-Type") != "text/csv; charset=utf-8" {
		t.Errorf("%v", w.Header())
	}
	records, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(w.Body.String(), "\uFEFF"))).ReadAll()
	if err != nil || len(records) != 4 {
		t.Fatalf("%d records: %v", len(records), err)
	}
	want := []string{"4", "PASSWORD policy", "Twelve characters", `{"score": 12345678901234567890}`, "", "'=cmd()", "[]", "2026-01-03T00:00:00"}
	if !slices.Equal(records[3], want) {
		t.Errorf("%q, want %q", records[3], want)
	}
	if records[1][5] != "line one\nnext line" {
		t.Errorf("%q", records[1][5])
	}
	if w := h.do("GET", "/api/votes.csv?from=x"); w.Code != 400 {
		t.Errorf("a bad filter: %d", w.Code)
	}
	if !h.export.exports.TryAcquire(maxExports) {
		t.Fatal("exports are in progress already")
	}
	if w := h.do("GET", "/api/votes.json"); w.Code != 503 {
		t.Errorf("beyond the last slot: %d", w.Code)
	}
}
