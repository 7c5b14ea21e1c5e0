package web

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"capture/snapshot/rowjson"
)

func TestColumnRoles(t *testing.T) {
	shape := &rowjson.Shape{Schema: "app", Table: "tickets", Key: []int{0}, Columns: []rowjson.Column{
		{Name: "id", TypeName: "uuid", Type: rowjson.Type{Kind: rowjson.Text, OID: 2950}},
		{Name: "headline", TypeName: "character varying(80)", Type: textType},
		{Name: "labels", TypeName: "character varying(20)[]", Type: tagsType},
		{Name: "others", TypeName: "text[]", Type: tagsType},
		{Name: "made", TypeName: "timestamp with time zone", Type: rowjson.Type{Kind: rowjson.TimestampTZ, OID: 1184}},
		{Name: "changed", TypeName: "timestamp with time zone", Type: rowjson.Type{Kind: rowjson.TimestampTZ, OID: 1184}},
	}}
	l, err := newColumnRoles(shape, "", "")
	if err != nil || fmt.Sprint(l.roles) != "[ question tags  time ]" {
		t.Errorf("by type: %q, %v", l.roles, err)
	}
	l, err = newColumnRoles(shape, "changed", "others")
	if err != nil || fmt.Sprint(l.roles) != "[ question  tags  time]" {
		t.Errorf("as told: %q, %v", l.roles, err)
	}
	if l, err = newColumnRoles(shape, "no such", "no such"); err != nil || l.time != -1 || l.tags != -1 {
		t.Errorf("names that are not there: %+v, %v", l, err)
	}
	r := newRowsTable(t, shape)
	r.put("7b7c3c5e-6a42-4a5c-9f3e-9d5f8c1a0b11", "Printer on fire", "{}", "{}", "2026-01-01 12:00:00+00", "2026-01-01 12:00:00+00")
	r.commit()
	h := newTableHarness(t, r, func(c *Config) { c.TimeColumn = "no such" })
	if w := h.do("GET", "/api/votes?from=2026-01-01"); w.Code != 400 || !strings.Contains(errorText(t, w), "--time-column") {
		t.Errorf("a filter by time without a time: %d %s", w.Code, w.Body)
	}
}

func TestUnquoteJSON(t *testing.T) {
	for _, text := range []string{`""`, `"a"`, `"\"\\\/\b\f\n\r\t"`, `"\u00e9\uD83D\uDE00"`, `"\ud800 alone"`, `"x \udc00\ud800"`, `"é\n"`, `"\u0000"`} {
		var want string
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		if got := string(unquoteJSON([]byte(text))); got != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}
