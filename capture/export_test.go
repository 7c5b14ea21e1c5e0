package capture

import (
	"runtime"
	"testing"
	"time"

	"capture/internal/pgserver"
)

// BenchmarkFirstCopy copies 100,000 votes from Postgres into memory. Before each of these copies, it runs the same COPY and
// discards the output. The metric ×COPY is the ratio of the two durations.
func BenchmarkFirstCopy(b *testing.B) {
	const rows = 100_000
	url := pgserver.Database(b)
	conn := connect(b, url)
	exec(b, conn, votes)
	if err := pgserver.FillVotes(b.Context(), conn, 1, rows); err != nil {
		b.Fatal(err)
	}
	exec(b, conn, "VACUUM ANALYZE votes")
	cfg := config(b, url)
	var encode, bare time.Duration
	var bytes int64
	var allocs uint64
	for b.Loop() {
		start := time.Now()
		if _, err := conn.PgConn().CopyTo(b.Context(), discard{}, "COPY votes TO STDOUT (FORMAT binary)"); err != nil {
			b.Fatal(err)
		}
		bare += time.Since(start)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start = time.Now()
		v, err := Export(b.Context(), cfg, nil)
		if err != nil {
			b.Fatal(err)
		}
		encode += time.Since(start)
		runtime.ReadMemStats(&after)
		bytes, allocs = v.Bytes(), after.Mallocs-before.Mallocs
	}
	n := float64(b.N)
	b.ReportMetric(rows*n/encode.Seconds(), "rows/s")
	b.ReportMetric(float64(bytes)*n/encode.Seconds()/1e6, "MB/s")
	b.ReportMetric(encode.Seconds()/bare.Seconds(), "×COPY")
	b.ReportMetric(float64(allocs)/rows, "allocs/row")
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
