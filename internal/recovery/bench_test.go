package recovery

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"testing"

	"capture/internal/postgres"
	"capture/snapshot/rowjson"
)

// BenchmarkEncode is what a restore costs on this side of the connection: reading, checking and turning rows into COPY's text.
func BenchmarkEncode(b *testing.B) {
	shape := &rowjson.Shape{Table: "votes", Key: []int{0}, Columns: []rowjson.Column{
		{Name: "vote_id", Type: rowjson.Type{OID: 23, Kind: rowjson.Number}},
		{Name: "bot_response"}, {Name: "evaluation_json", Type: rowjson.Type{Kind: rowjson.JSON}},
		{Name: "feedback_tags", Type: rowjson.Type{Kind: rowjson.Array, Elem: &rowjson.Type{}, Delim: ','}},
		{Name: "timestamp", Type: rowjson.Type{Kind: rowjson.Timestamp}},
	}}
	var file bytes.Buffer
	file.WriteString("[\n")
	const rows = 10_000
	for i := range rows {
		fmt.Fprintf(&file, `{"vote_id":%d,"bot_response":"%s","evaluation_json":{"score": 1, "why": "because %[1]d"},"feedback_tags":["clear","tag 1"],"timestamp":"2025-06-17T16:58:00.25"}`,
			i, bytes.Repeat([]byte(`You can do that in the settings.\n`), 20))
		file.WriteString([]string{",\n", "\n]\n"}[i/(rows-1)])
	}
	b.SetBytes(int64(file.Len()))
	b.ReportAllocs()
	for b.Loop() {
		hash := sha256.New()
		l := &loader{from: newReader(io.TeeReader(bytes.NewReader(file.Bytes()), hash))}
		var ms []member
		var batch batch
		for {
			at, err := l.from.next()
			if err == io.EOF {
				break
			}
			if err == nil {
				ms, err = members(ms[:0], at.text)
			}
			if err == nil && l.plan == nil {
				l.plan, err = newPlan(&postgres.Table{Shape: shape}, ms, nil)
			}
			if err == nil {
				err = l.add(&batch, ms, at.line, 1)
			}
			if err != nil {
				b.Fatal(err)
			}
			if len(batch.data) > batchBytes {
				batch.reset()
			}
		}
	}
}
