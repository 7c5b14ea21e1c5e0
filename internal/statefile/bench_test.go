package statefile

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
)

// votesFile returns the contents of a file with n votes of about 2.6 kB each. The votes contain nested JSON.
func votesFile(n int) []byte {
	var b bytes.Buffer
	b.WriteString("[\n")
	for i := range n {
		if i > 0 {
			b.WriteString(",\n")
		}
		fmt.Fprintf(&b, `{"vote_id":%d,"user_query":"How do I change the \"color\" of row %[1]d? é🗳","bot_response":"%s",`, i, strings.Repeat(`You can do that in the settings.\n`, 40))
		fmt.Fprintf(&b, `"evaluation_json":{"score": %d.50, "checks": [%s], "by": {"model": "m-%[1]d", "ms": 1e3}},`, i%5, strings.Repeat(`{"name": "grounded", "ok": true, "why": null}, `, 12)+`{}`)
		fmt.Fprintf(&b, `"feedback_tags":["clear","tag %d"],"comment":null,"citations":[%s],"timestamp":"2025-06-17T16:58:00.25"}`, i%7, strings.Repeat(`{"url": "https://example.com/a/b?c=d", "title": "A page"},`, 8)+`{}`)
	}
	b.WriteString("\n]\n")
	return b.Bytes()
}

func BenchmarkReader(b *testing.B) {
	file := votesFile(4000)
	b.SetBytes(int64(len(file)))
	b.ReportAllocs()
	for b.Loop() {
		r := NewReader(bytes.NewReader(file))
		for {
			if _, err := r.Next(); err == io.EOF {
				break
			} else if err != nil {
				b.Fatal(err)
			}
		}
	}
}
