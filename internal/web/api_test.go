package web

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"capture/capture"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// Types as the catalog gives them.
var (
	textType = rowjson.Type{Kind: rowjson.Text, OID: 25}
	intType  = rowjson.Type{Kind: rowjson.Number, OID: 23}
	jsonType = rowjson.Type{Kind: rowjson.JSON, OID: 3802}
	timeType = rowjson.Type{Kind: rowjson.Timestamp, OID: 1114}
	tagsType = rowjson.Type{Kind: rowjson.Array, OID: 1009, Elem: &textType, Delim: ','}
)

func votesShape() *rowjson.Shape {
	return &rowjson.Shape{Schema: "public", Table: "votes", Fingerprint: "votes", Key: []int{0}, Columns: []rowjson.Column{
		{Name: "vote_id", TypeName: "integer", Type: intType},
		{Name: "user_query", TypeName: "text", Type: textType},
		{Name: "bot_response", TypeName: "text", Type: textType},
		{Name: "evaluation_json", TypeName: "jsonb", Type: jsonType},
		{Name: "feedback_tags", TypeName: "text[]", Type: tagsType},
		{Name: "comment", TypeName: "text", Type: textType},
		{Name: "citations", TypeName: "jsonb", Type: jsonType},
		{Name: "timestamp", TypeName: "timestamp without time zone", Type: timeType},
	}}
}

// rows is a table that a test fills.
type rowsTable struct {
	*snapshot.Table
	enc *rowjson.Encoder
	t   testing.TB
}

func newRows(t testing.TB, shape *rowjson.Shape) *rowsTable {
	t.Helper()
	enc, err := rowjson.NewEncoder(shape, false)
	if err != nil {
		t.Fatal(err)
	}
	tab := snapshot.NewTable()
	tab.Load(shape, snapshot.Origin{Source: "logical"})
	tab.Commit(snapshot.Position{})
	return &rowsTable{tab, enc, t}
}

// put adds a row; "\x00" stands for NULL.
func (r *rowsTable) put(values ...string) {
	r.t.Helper()
	texts := make([][]byte, len(values))
	for i, v := range values {
		if v != "\x00" {
			texts[i] = []byte(v)
		}
	}
	key, err := r.enc.AppendKey(nil, texts)
	if err != nil {
		r.t.Fatal(err)
	}
	line, err := r.enc.AppendRow(nil, texts, nil)
	if err != nil {
		r.t.Fatal(err)
	}
	r.Put(key, line)
}

func (r *rowsTable) commit() { r.Commit(snapshot.Position{}) }

func (r *rowsTable) vote(id int, query, answer, tags, comment, when string) {
	r.t.Helper()
	r.put(fmt.Sprint(id), query, answer, `{"score": 12345678901234567890}`, tags, comment, "[]", when)
}

func harnessOf(t *testing.T, r *rowsTable, change func(*Config)) *harness {
	t.Helper()
	return newHarness(t, func(cfg *Config) {
		cfg.View = r.View
		cfg.Status = func() capture.Status { return capture.Status{State: "following", Ready: true} }
		if change != nil {
			change(cfg)
		}
	})
}

type votesAnswer struct {
	Version, Total, Scanned int
	Next                    *string
	Rows                    []struct {
		Key string
		Row json.RawMessage
	}
}

func (a votesAnswer) keys() string {
	var keys []string
	for _, r := range a.Rows {
		keys = append(keys, r.Key)
	}
	return strings.Join(keys, " ")
}

func (h *harness) votesOf(t *testing.T, query string) votesAnswer {
	t.Helper()
	w := h.do("GET", "/api/votes?"+query)
	var a votesAnswer
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 {
		t.Fatalf("/api/votes?%s: %d %s: %v", query, w.Code, w.Body, err)
	}
	return a
}

func someVotes(t *testing.T) *rowsTable {
	r := newRows(t, votesShape())
	r.vote(1, "How do I reset my password?", "Open **Settings**.", `{"Looks Good - Accurate"}`, "thanks", "2026-01-01 08:00:00")
	r.vote(2, "Où est le café?", "Rue de l'Église", `{Incorrect,"Too \"long\""}`, "line one\nnext line", "2026-01-02 00:00:00")
	r.vote(3, `a "quoted" \ thing`, "nothing", `{}`, "\x00", "2026-01-02 23:59:59.999999")
	r.vote(4, "PASSWORD policy", "Twelve characters", "\x00", "=cmd()", "2026-01-03 00:00:00")
	r.vote(5, "latest", "<script>alert(1)</script>", `{Incorrect}`, "\x00", "\x00")
	r.commit()
	return r
}

func TestVotes(t *testing.T) {
	h := harnessOf(t, someVotes(t), nil)
	for _, c := range []struct{ query, keys string }{
		{"", "5 4 3 2 1"},
		{"limit=2", "5 4"},
		{"limit=2&after=4", "3 2"},
		{"after=1", ""},
		{"after=99", "5 4 3 2 1"},
		{"q=password", "4 1"},
		{"q=passWORD+policy", "4"},
		{"q=reset+thanks", "1"},
		{"q=caf%C3%A9", "2"},
		{"q=%C3%89GLISE", "2"},
		{"q=%22quoted%22", "3"},
		{`q=%5C`, "3"},
		{"q=nnext", ""}, // the n of \n is no letter
		{"q=next", "2"},
		{"q=12345678901234567890", ""}, // not a text
		{"q=user_query", ""},           // nor are the columns' names
		{"q=%3Cscript%3E", "5"},
		{"tag=Incorrect", "5 2"},
		{"tag=Incorrec", ""},
		{"tag=Too+%22long%22", "2"},
		{"tag=Looks+Good+-+Accurate", "1"},
		{"from=2026-01-02", "4 3 2"},
		{"to=2026-01-02", "3 2 1"},
		{"from=2026-01-02&to=2026-01-02", "3 2"},
		{"from=2026-01-02T12:00:00Z&to=2026-01-03T00:00:00Z", "3"},
		{"from=2026-01-02T13:00:00%2B01:00", "4 3"},
		{"q=password&from=2026-01-02", "4"},
	} {
		if got := h.votesOf(t, c.query).keys(); got != c.keys {
			t.Errorf("%s: %q, want %q", c.query, got, c.keys)
		}
	}
	a := h.votesOf(t, "limit=2")
	if a.Total != 5 || a.Next == nil || *a.Next != "4" {
		t.Errorf("first page: %+v", a)
	}
	if a = h.votesOf(t, "limit=3&after=4"); a.Next != nil {
		t.Errorf("last page goes on at %s", *a.Next)
	}
	if !bytes.Contains(h.votesOf(t, "limit=1&after=2").Rows[0].Row, []byte("12345678901234567890")) {
		t.Error("a number's digits were changed")
	}
	for _, query := range []string{"limit=0", "limit=501", "limit=x", "after=x", "after=1,2", "from=yesterday", "to=2026-13-01",
		"q=" + strings.Repeat("x", maxQueryBytes+1), "q=%FF", "q=" + strings.Repeat("x+", maxQueryWords+1)} {
		w := h.do("GET", "/api/votes?"+query)
		if w.Code != 400 {
			t.Errorf("%s: %d", query, w.Code)
		}
		errorOf(t, w)
	}
}

func TestOneVote(t *testing.T) {
	h := harnessOf(t, someVotes(t), nil)
	w := h.do("GET", "/api/votes/4")
	if w.Code != 200 || !strings.HasPrefix(w.Body.String(), `{"key":"4","row":{"vote_id":4,`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	for _, key := range []string{"99", "x", "04", "4%2F", "(4)", "%22"} {
		if w = h.do("GET", "/api/votes/"+key); w.Code != 404 {
			t.Errorf("%s: %d", key, w.Code)
		}
		errorOf(t, w)
	}
}

// Whatever a key is made of, the API finds the row by the key that it gave, and pages by it.
func TestKeysOfOtherTables(t *testing.T) {
	shape := &rowjson.Shape{Schema: "app", Table: "notes", Fingerprint: "notes", Key: []int{1, 0}, Columns: []rowjson.Column{
		{Name: "n", TypeName: "integer", Type: intType},
		{Name: "name", TypeName: "text", Type: textType},
		{Name: "at", TypeName: "timestamp without time zone", Type: timeType},
	}}
	names := []string{"plain", "", "a b", `q"uote`, "com,ma", "(par)", "..", "/", "a/../b", "ümlaut", "%2F", `back\slash`, "1", "\n", "'"}
	for _, keys := range [][]int{{1, 0}, {1}, {2, 1}} {
		shape.Key = keys
		r := newRows(t, shape)
		for i, name := range names {
			r.put(fmt.Sprint(i-3), name, "2026-01-01 00:00:0"+fmt.Sprint(i%10))
		}
		r.commit()
		h := harnessOf(t, r, nil)
		seen, after := 0, ""
		for {
			a := h.votesOf(t, "limit=2&after="+after)
			for _, row := range a.Rows {
				seen++
				w := h.do("GET", "/api/votes/"+url.PathEscape(row.Key))
				if w.Code != 200 || !strings.Contains(w.Body.String(), string(row.Row)) {
					t.Errorf("key %v: %q: %d %s", keys, row.Key, w.Code, w.Body)
				}
			}
			if a.Next == nil {
				break
			}
			after = url.QueryEscape(*a.Next)
		}
		if seen != len(names) {
			t.Errorf("key %v: %d rows of %d by pages", keys, seen, len(names))
		}
	}
}

func TestNoCopyYet(t *testing.T) {
	h := newHarness(t, nil)
	for _, target := range []string{"/api/votes", "/api/votes/1", "/api/summary", "/api/votes.json", "/api/votes.csv"} {
		w := h.do("GET", target)
		if w.Code != 503 {
			t.Errorf("%s: %d", target, w.Code)
		}
		errorOf(t, w)
	}
}

func TestExports(t *testing.T) {
	r := someVotes(t)
	h := harnessOf(t, r, nil)
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
	w := h.do("GET", "/api/votes.csv?from=2026-01-02")
	if w.Header().Get("Content-Disposition") == "" || w.Header().Get("Content-Type") != "text/csv; charset=utf-8" {
		t.Errorf("%v", w.Header())
	}
	records, err := csv.NewReader(w.Body).ReadAll()
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

func TestSummary(t *testing.T) {
	r := someVotes(t)
	today := time.Now().UTC().Format(time.DateOnly)
	r.vote(6, "a", "b", `{"looks good, really",Incorrect}`, "", today+" 00:00:00")
	r.vote(7, "a", "b", `{Incorrect}`, "", today+" 00:00:00")
	r.vote(8, "a", "b", `{}`, "", today+" 00:00:00")
	r.vote(9, "a", "b", `{}`, "", "infinity")
	r.commit()
	h := harnessOf(t, r, nil)
	var a summary
	read := func() {
		t.Helper()
		w := h.do("GET", "/api/summary")
		a = summary{}
		if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil || w.Code != 200 {
			t.Fatalf("%d %s: %v", w.Code, w.Body, err)
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		if read(); a.Current {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("never current")
		}
	}
	if a.Title != "Feedback in votes" || a.Rows != 9 || len(a.Days) != summaryDays || a.Status.State != "following" {
		t.Errorf("%+v", a)
	}
	if last := a.Days[summaryDays-1]; last != (dayCount{today, 3, 1, 1}) {
		t.Errorf("today: %+v", last)
	}
	if len(a.Tags) != 4 || a.Tags[0] != (tagCount{"Incorrect", 4, false}) || a.Untagged != 4 {
		t.Errorf("tags: %+v, untagged %d", a.Tags, a.Untagged)
	}
	roles := map[string]role{}
	for _, c := range a.Columns {
		roles[c.Name] = c.Role
	}
	for name, want := range map[string]role{"user_query": roleQuestion, "bot_response": roleAnswer, "comment": roleComment,
		"feedback_tags": roleTags, "timestamp": roleTime, "citations": roleCitations, "evaluation_json": "", "vote_id": ""} {
		if roles[name] != want {
			t.Errorf("%s is %q, want %q", name, roles[name], want)
		}
	}
	if !a.Columns[0].Key || a.Columns[1].Key {
		t.Error("vote_id is the key")
	}
}

// Where all votes are old, the days end with the newest.
func TestSummaryOfAnOldTable(t *testing.T) {
	r := someVotes(t)
	h := harnessOf(t, r, nil)
	table, _ := h.votes.tables.current(nil)
	days := countVotes(table, nil).lastDays(time.Date(2027, 6, 1, 0, 0, 0, 0, time.UTC))
	if last := days[summaryDays-1]; last.Day != "2026-01-03" || last.Total != 1 {
		t.Errorf("%+v", last)
	}
}

func TestRolesOfOtherTables(t *testing.T) {
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
	r := newRows(t, shape)
	r.put("7b7c3c5e-6a42-4a5c-9f3e-9d5f8c1a0b11", "Printer on fire", "{}", "{}", "2026-01-01 12:00:00+00", "2026-01-01 12:00:00+00")
	r.commit()
	h := harnessOf(t, r, func(c *Config) { c.TimeColumn = "no such" })
	if w := h.do("GET", "/api/votes?from=2026-01-01"); w.Code != 400 || !strings.Contains(errorOf(t, w), "--time-column") {
		t.Errorf("a filter by time without a time: %d %s", w.Code, w.Body)
	}
}

func TestPageAndToken(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.TokenFile = tokenOf(t) })
	w := h.do("GET", "/", "Host", "capture.example", "Remote", "192.0.2.1:5")
	if w.Code != 401 || !strings.Contains(w.Body.String(), "<title>Feedback</title>") {
		t.Errorf("the page without the token: %d", w.Code)
	}
	if w = h.do("GET", "/", "Authorization", "Bearer abc"); w.Code != 200 {
		t.Errorf("the page with the token: %d", w.Code)
	}
	csp := w.Header().Get("Content-Security-Policy")
	if !strings.Contains(csp, "script-src 'self'") || strings.Contains(csp, "unsafe") {
		t.Errorf("policy %q", csp)
	}
	for _, name := range []string{"app.js", "style.css", "icon.svg", "markdown.js"} {
		w = h.do("GET", "/static/"+name)
		if w.Code != 200 || w.Header().Get("Content-Type") == "" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", name, w.Code, w.Header())
		}
		if w = h.do("GET", "/static/"+name, "If-None-Match", w.Header().Get("ETag")); w.Code != 304 {
			t.Errorf("%s again: %d", name, w.Code)
		}
	}
	for _, target := range []string{"/static/", "/static/..", "/static/%2e%2e%2fweb.go", "/static/nothing"} {
		if w = h.do("GET", target); w.Code != 404 {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
	for _, target := range []string{"/api/votes", "/api/summary", "/api/events", "/api/votes/1", "/api/votes.json", "/api/votes.csv", "/feedback.json"} {
		if w = h.do("GET", target); w.Code != 401 {
			t.Errorf("%s without the token: %d", target, w.Code)
		}
	}

	h = newHarness(t, nil)
	link := []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	if w = h.do("GET", "/", link...); w.Code != 200 {
		t.Errorf("a link on another site to the page: %d", w.Code)
	}
	if w = h.do("GET", "/feedback.json", link...); w.Code != 403 {
		t.Errorf("a link on another site to the votes: %d", w.Code)
	}
	if w = h.do("GET", "/", append(link, "Host", "evil.example")...); w.Code != 403 {
		t.Errorf("the page under a rebound name: %d", w.Code)
	}
	if w = h.do("GET", "/", "Remote", "192.0.2.1:5"); w.Code != 403 {
		t.Errorf("the page from afar: %d", w.Code)
	}
}

func tokenOf(t *testing.T) string {
	h := &harness{dir: t.TempDir()}
	h.replace(t, "token", "abc\n")
	return h.dir + "/token"
}

func TestEvents(t *testing.T) {
	r := newRows(t, votesShape())
	var votes votesWatcher
	next := func() (a struct {
		votesAnswer
		More, Reshaped bool
	}) {
		t.Helper()
		event := votes.nextEvent(r.View())
		if event == nil {
			t.Fatal("no event")
		}
		data, ok := strings.CutPrefix(string(event), "event: votes\ndata: ")
		if !ok || !strings.HasSuffix(data, "\n\n") || json.Unmarshal([]byte(data), &a) != nil {
			t.Fatalf("event %q", event)
		}
		return a
	}
	if votes.nextEvent(nil) != nil || votes.nextEvent(r.View()) != nil || votes.nextEvent(r.View()) != nil {
		t.Fatal("the first state is no event")
	}
	r.vote(5, "a", "b", "{}", "c", "2026-01-01 00:00:00")
	r.vote(4, "a", "b", "{}", "c", "2026-01-01 00:00:00")
	r.commit()
	if a := next(); a.keys() != "5 4" || a.Total != 2 || a.More {
		t.Errorf("two votes: %+v", a)
	}
	r.vote(5, "a", "changed", "{}", "c", "2026-01-01 00:00:00")
	r.vote(3, "in between", "b", "{}", "c", "2026-01-01 00:00:00")
	r.commit()
	if a := next(); a.keys() != "" || a.Total != 3 {
		t.Errorf("a change and one in between: %+v", a)
	}
	for id := 10; id < 10+maxEventRows+1; id++ {
		r.vote(id, "a", "b", "{}", "c", "2026-01-01 00:00:00")
	}
	r.commit()
	if a := next(); len(a.Rows) != maxEventRows || !a.More {
		t.Errorf("many votes: %d rows, more %t", len(a.Rows), a.More)
	}
	shape := votesShape()
	shape.Fingerprint = "another"
	r.Load(shape, snapshot.Origin{})
	r.commit()
	if a := next(); !a.Reshaped || len(a.Rows) != 0 {
		t.Errorf("another shape: %+v", a)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	h := harnessOf(t, someVotes(t), nil)
	var streams []chan []byte
	for range maxStreams {
		streams = append(streams, h.events.hub.subscribe())
	}
	if w := h.do("GET", "/api/events"); w.Code != http.StatusServiceUnavailable {
		t.Errorf("beyond the last stream: %d", w.Code)
	}
	for range subscriberQueue + 1 {
		h.events.hub.broadcast([]byte("x"))
	}
	if !h.events.hub.isEmpty() {
		t.Error("readers that lag behind are to be left")
	}
	for range streams[0] {
	} // closed after what was sent
}

func TestWords(t *testing.T) {
	for _, c := range []struct {
		word, text string
		want       bool
	}{
		{"a", `"A"`, true}, {"abc", `"xxABCxx"`, true}, {"abc", `"ab"`, false}, {"zebra", `"a ZEBRA"`, true},
		{"n", `"\n"`, false}, {"u2", `"\u200b"`, false}, {"\\n", `"\\n"`, true}, {"é", `"É"`, true}, {"aé", `"AÉ"`, true},
		{"\u2028", "\"\u2028\"", true}, {"\x01", `"\u0001"`, true}, {"\x1f", `"\u001f"`, true}, {"\b", `"\b"`, true}, {"\x7f", "\"\x7f\"", true}, {"/", `"/"`, true}, {"<b>", `"<B>"`, true}, {"&", `"&"`, true}, {"ß", `"SS"`, false},
		{"日本", `"in 日本"`, true}, {"日本", `"日 本"`, false}, {"Σ", `"ς σ"`, true}, {"ÖL", `"öl"`, true}, {"aab", `"aaab"`, true}, {"aaaa", `"aaa"`, false},
	} {
		w := newWord(c.word)
		if got := w.isInAny([][]byte{[]byte(c.text)}); got != c.want {
			t.Errorf("%q in %s: %t", c.word, c.text, got)
		}
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
