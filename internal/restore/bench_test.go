package restore

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"testing"

	"capture/internal/postgres"
	"capture/internal/statefile"
	"capture/snapshot/rowjson"
)

// BenchmarkEncode measures the client's part of a restore: reading and checking rows, and converting them to COPY's text
// format.
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
		rows := statefile.NewReader(io.TeeReader(bytes.NewReader(file.Bytes()), hash))
		var l *loader
		var current batch
		for {
			row, err := rows.Next()
			if err == io.EOF {
				break
			}
			if err == nil && l == nil {
				l = &loader{}
				l.columns, err = mapColumns(&postgres.Table{Shape: shape}, row.Members, nil)
				current.columns = l.columns
			}
			if err == nil {
				err = l.encodeRow(&current, row, 1)
			}
			if err != nil {
				b.Fatal(err)
			}
			if len(current.data) > batchBytes {
				current.reset()
			}
		}
	}
}
