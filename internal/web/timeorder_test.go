package web

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"capture/internal/race"
	"capture/snapshot/rowjson"
)

// feedbackShape returns the shape of a table with random keys and a time. Many newer applications have such a table.
func feedbackShape() *rowjson.Shape {
	return &rowjson.Shape{Schema: "public", Table: "feedback", Key: []int{0}, Columns: []rowjson.Column{
		{Name: "id", TypeName: "uuid", Type: rowjson.Type{Kind: rowjson.Text, OID: 2950}},
		{Name: "created_at", TypeName: "timestamp with time zone", Type: rowjson.Type{Kind: rowjson.TimestampTZ, OID: 1184}},
		{Name: "comment", TypeName: "text", Type: textType},
	}}
}

// timedRow is a row of the model. The model is the list of rows with which the test compares the pages.
type timedRow struct {
	id, at string
	micros int64
}

// TestPagesByTime reads all pages while other votes are inserted. It checks that each vote that existed at the first page is
// on exactly one page, newest first, however many votes have the same time or no time.
func TestPagesByTime(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	rounds := 8
	if race.Enabled {
		rounds = 3
	}
	for round := range rounds {
		table := newRowsTable(t, feedbackShape())
		var model []timedRow
		insert := func() timedRow {
			row := timedRow{id: fmt.Sprintf("%08x-0000-4000-8000-%012x", r.Uint32(), len(model)), at: "\x00", micros: noTime}
			switch k := r.IntN(10); {
			case k == 0:
			case k == 1:
				row.at, row.micros = "infinity", 1<<63-1
			default:
				at := start.Add(time.Duration(r.IntN(50*(round+1))) * time.Hour) // many rows get the same time
				if k == 2 {
					at = at.Add(time.Duration(r.IntN(1_000_000)) * time.Microsecond)
				}
				row.at, row.micros = at.Format("2006-01-02 15:04:05.999999")+"+00", at.UnixMicro()
			}
			comment := "other"
			if r.IntN(3) == 0 {
				comment = "wanted"
			}
			table.put(row.id, row.at, comment+strings.Repeat("x", r.IntN(3000)))
			model = append(model, row)
			return row
		}
		for range 600 {
			insert()
		}
		table.commit()
		slices.SortFunc(model, func(a, b timedRow) int { return cmp.Or(cmp.Compare(b.micros, a.micros), cmp.Compare(b.id, a.id)) })
		h := newTableHarness(t, table, nil)
		for _, q := range []string{"", "wanted"} {
			original := slices.Clone(model)
			var got []string
			next := ""
			for pages := 0; ; pages++ {
				var page struct {
					Next *string
					Rows []struct {
						Key, Next string
						Row       struct{ Comment string }
					}
				}
				target := fmt.Sprintf("/api/votes?limit=%d&q=%s&after=%s", 1+r.IntN(60), q, url.QueryEscape(next))
				w := h.do("GET", target)
				if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || w.Code != 200 {
					t.Fatalf("%s: %d %s", target, w.Code, w.Body)
				}
				for _, row := range page.Rows {
					got = append(got, row.Key)
					if q != "" && !strings.HasPrefix(row.Row.Comment, q) {
						t.Fatalf("%s: %s does not match", target, row.Key)
					}
				}
				if page.Next == nil {
					break
				}
				next = *page.Next
				if n := len(page.Rows); n > 0 && r.IntN(3) == 0 {
					next = page.Rows[n-1].Next // a page may also begin after a given vote; choose the last vote of this page
				}
				for range r.IntN(5) {
					insert()
				}
				table.commit()
			}
			known := map[string]int{}
			for i, row := range original {
				known[row.id] = i
			}
			last, of := -1, 0
			for _, key := range got {
				if at, ok := known[key]; ok {
					if at <= last {
						t.Fatalf("round %d, %q: %s comes after a later one, or twice", round, q, key)
					}
					last, of = at, of+1
				}
			}
			if q == "" && of != len(original) {
				t.Fatalf("round %d: %d of %d votes came", round, of, len(original))
			}
			if unique := slices.Compact(slices.Sorted(slices.Values(got))); len(unique) != len(got) {
				t.Fatalf("round %d, %q: a vote came twice", round, q)
			}
			slices.SortFunc(model, func(a, b timedRow) int { return cmp.Or(cmp.Compare(b.micros, a.micros), cmp.Compare(b.id, a.id)) })
		}
	}
}

// TestNewVotesByTime checks that an event contains a vote if it is newer than all others, whatever its key is. It also
// checks that a page may begin after the key of a vote, and that an unknown key is refused.
func TestNewVotesByTime(t *testing.T) {
	table := newRowsTable(t, feedbackShape())
	table.put("b0000000-0000-4000-8000-000000000000", "2026-01-01 00:00:00+00", "first")
	table.commit()
	h := newTableHarness(t, table, nil)
	votes := votesWatcher{tables: h.votes.tables}
	votes.nextEvent(table.View())
	table.put("a0000000-0000-4000-8000-000000000000", "2026-01-02 00:00:00+00", "second")
	table.put("c0000000-0000-4000-8000-000000000000", "2025-01-02 00:00:00+00", "written late")
	table.commit()
	event := string(votes.nextEvent(table.View()))
	if !strings.Contains(event, `"comment":"second"`) || strings.Contains(event, "written late") || !strings.Contains(event, `"total":3`) {
		t.Errorf("the event is %s", event)
	}
	body := h.do("GET", "/api/votes?after=a0000000-0000-4000-8000-000000000000").Body.String()
	if strings.Contains(body, "second") || strings.Index(body, "first") > strings.Index(body, "written late") {
		t.Errorf("after the key: %s", body)
	}
	for after, want := range map[string]int{
		"d0000000-0000-4000-8000-000000000000": 400, "t:x": 400, "tx:a0000000-0000-4000-8000-000000000000": 400,
		"t1:": 200, // an empty text may be a key
		"":    200,
	} {
		if w := h.do("GET", "/api/votes?after="+after); w.Code != want {
			t.Errorf("after %q: %d %s", after, w.Code, w.Body)
		}
	}
}

func TestParseMicros(t *testing.T) {
	for text, want := range map[string]time.Time{
		"2025-06-17T16:58:00": time.Date(2025, 6, 17, 16, 58, 0, 0, time.UTC), "2025-06-17T16:58:00.25+00:00": time.Date(2025, 6, 17, 16, 58, 0, 250_000_000, time.UTC),
		"2025-06-17": time.Date(2025, 6, 17, 0, 0, 0, 0, time.UTC), "12025-06-17T00:00:00.000001": time.Date(12025, 6, 17, 0, 0, 0, 1000, time.UTC),
		"0044-03-15T12:00:00 BC": time.Date(-43, 3, 15, 12, 0, 0, 0, time.UTC), "294276-12-31T23:59:59": time.Date(294276, 12, 31, 23, 59, 59, 0, time.UTC),
	} {
		if got, ok := parseMicros(text); !ok || got != want.UnixMicro() {
			t.Errorf("%s is %d, %t, want %d", text, got, ok, want.UnixMicro())
		}
		if got, ok := parseUsualMicros([]byte(text)); ok && got != want.UnixMicro() {
			t.Errorf("%s is usually %d, want %d", text, got, want.UnixMicro())
		}
	}
	for _, text := range []string{"", "x", "2025", "2025-06-17T", "2025-06-17Tx"} {
		if got, ok := parseMicros(text); ok {
			t.Errorf("%q is %d", text, got)
		}
		if got, ok := parseUsualMicros([]byte(text)); ok {
			t.Errorf("%q is usually %d", text, got)
		}
	}
}
