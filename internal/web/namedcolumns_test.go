package web

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"capture/capture"
	"capture/snapshot/rowjson"
)

// A column of numbers that count the time since 1970, in any unit, is a time column if the operator names it.
func TestEpochTimeColumn(t *testing.T) {
	shape := &rowjson.Shape{Schema: "public", Table: "feedback", Key: []int{0}, Columns: []rowjson.Column{
		{Name: "id", TypeName: "integer", Type: rowjson.Type{Kind: rowjson.Number, OID: 23}},
		{Name: "created_at", TypeName: "bigint", Type: rowjson.Type{Kind: rowjson.Number, OID: 20}},
		{Name: "labels", TypeName: "text[]", Type: tagsType},
		{Name: "comment", TypeName: "text", Type: textType},
	}}
	for unit, of := range map[string]string{"seconds": "%d", "milliseconds": "%d123", "microseconds": "%d123456"} {
		r := newRowsTable(t, shape)
		for i, second := range []int64{1750118399, 1750118400, 1750179480, 1750204800} { // the second and third are on 2025-06-17
			r.put(fmt.Sprint(i), fmt.Sprintf(of, second), "{}", "x")
		}
		r.put("9", "\x00", "{}", "x")
		r.commit()
		h := newTableHarness(t, r, func(c *Config) { c.TimeColumn = "created_at" })
		body := h.do("GET", "/api/votes?from=2025-06-17&to=2025-06-17").Body.String()
		if strings.Count(body, `"key":`) != 2 || !strings.Contains(body, `"key":"1"`) || !strings.Contains(body, `"key":"2"`) {
			t.Errorf("%s: of one day come %s", unit, body)
		}
		if body := h.do("GET", "/api/votes?from=2025-06-17T16:58:00Z&to=2025-06-17T16:58:01Z").Body.String(); strings.Count(body, `"key":`) != 1 {
			t.Errorf("%s: of one second come %s", unit, body)
		}
		var s struct{ Days []dayCount }
		if err := json.Unmarshal(h.do("GET", "/api/summary").Body.Bytes(), &s); err != nil || len(s.Days) != summaryDays {
			t.Fatalf("%s: %v, %d days", unit, err, len(s.Days))
		}
		last := s.Days[len(s.Days)-2:]
		if last[0] != (dayCount{Day: "2025-06-17", Total: 2}) || last[1] != (dayCount{Day: "2025-06-18", Total: 1}) {
			t.Errorf("%s: the last days are %+v", unit, last)
		}
	}
}

// TestNamedColumnsAreChecked checks that /readyz reports a named column that does not exist, or that cannot hold times or tags.
// The log must report such a column exactly once.
func TestNamedColumnsAreChecked(t *testing.T) {
	r := fiveVotes(t)
	for _, c := range []struct{ time, tags, want string }{
		{"", "", ""},
		{"timestamp", "feedback_tags", ""},
		{"vote_id", "comment", ""},
		{"timestmap", "", `--time-column names column "timestmap", which the table does not have; it has "vote_id", "timestamp"`},
		{"comment", "vote_id", `--time-column names column "comment" of type text, which holds no times; --tags-column names column "vote_id" of type integer, which holds no tags`},
		{"", "tags", `--tags-column names column "tags", which the table does not have; it has "user_query"`},
	} {
		h := newTableHarness(t, r, func(cfg *Config) { cfg.TimeColumn, cfg.TagsColumn = c.time, c.tags })
		for range 3 {
			var st capture.Status
			if err := json.Unmarshal(h.do("GET", "/readyz").Body.Bytes(), &st); err != nil {
				t.Fatal(err)
			}
			found := ""
			for _, check := range st.Checks {
				if check.Name == columnCheck && !check.OK {
					found = check.Detail
				}
			}
			if !strings.HasPrefix(found, c.want) || c.want == "" && found != "" {
				t.Errorf("%q, %q: /readyz says %q, want %q", c.time, c.tags, found, c.want)
			}
		}
		wantLines := 0
		if c.want != "" {
			wantLines = 1
		}
		if n := strings.Count(h.log.String(), "column for the page not usable"); n != wantLines {
			t.Errorf("%q, %q: %d log lines: %s", c.time, c.tags, n, h.log.String())
		}
		if w := h.do("GET", "/api/votes"); w.Code != 200 {
			t.Errorf("%q, %q: %d %s", c.time, c.tags, w.Code, w.Body)
		}
	}
}
