package verify

import (
	"hash/maphash"
	"strings"
	"testing"
)

// BenchmarkHash measures the work of a comparison for each row of the table and of the state.
func BenchmarkHash(b *testing.B) {
	line := []byte(`{"vote_id":1,"bot_response":"` + strings.Repeat(`You can do that in the settings.\n`, 40) + `","evaluation_json":{"score": 1.50, "checks": [` +
		strings.Repeat(`{"name": "grounded", "ok": true, "why": null}, `, 12) + `{}]},"feedback_tags":["clear","tag 1"],"comment":null}`)
	t := &tableSnapshot{seed: maphash.MakeSeed()}
	b.SetBytes(int64(len(line)))
	b.ReportAllocs()
	for b.Loop() {
		t.hashLine(line)
	}
}
