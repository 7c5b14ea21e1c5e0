package web

import (
	"fmt"
	"testing"

	"capture/capture"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// Types of columns, as Postgres' catalog describes them.
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

// rowsTable is a table that a test fills.
type rowsTable struct {
	*snapshot.Table
	enc *rowjson.Encoder
	t   testing.TB
}

func newRowsTable(t testing.TB, shape *rowjson.Shape) *rowsTable {
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

// put adds a row with the given texts of its columns. The text "\x00" stands for NULL.
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

func newTableHarness(t *testing.T, r *rowsTable, change func(*Config)) *harness {
	t.Helper()
	return newHarness(t, func(cfg *Config) {
		cfg.View = r.View
		cfg.Status = func() capture.Status { return capture.Status{State: "following", Ready: true} }
		if change != nil {
			change(cfg)
		}
	})
}

func fiveVotes(t *testing.T) *rowsTable {
	r := newRowsTable(t, votesShape())
	r.vote(1, "How do I reset my password?", "Open **Settings**.", `{"Looks Good - Accurate"}`, "thanks", "2026-01-01 08:00:00")
	r.vote(2, "Où est le café?", "Rue de l'Église", `{Incorrect,"Too \"long\""}`, "line one\nnext line", "2026-01-02 00:00:00")
	r.vote(3, `a "quoted" \ thing`, "nothing", `{}`, "\x00", "2026-01-02 23:59:59.999999")
	r.vote(4, "PASSWORD policy", "Twelve characters", "\x00", "=cmd()", "2026-01-03 00:00:00")
	r.vote(5, "latest", "<script>alert(1)</script>", `{Incorrect}`, "\x00", "\x00")
	r.commit()
	return r
}
