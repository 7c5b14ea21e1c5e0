package capture

import (
	"errors"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/pgserver"
	"capture/snapshot"
)

// TestExportDuringMigration: the application migrates its table while an export reads it. The export ends its read, so that the
// migration gets its lock. The export then waits until the migration ends, even if a single attempt to lock the table times
// out, and reads the migrated table.
func TestExportDuringMigration(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the lock's timeout")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn, other := connect(t, url), connect(t, url)
	bigTable(t, conn)
	log := &syncBuffer{}
	cfg := config(t, url)
	cfg.CopyRate = 50_000 // the whole read takes two minutes
	cfg.Logger = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Warn})
	type result struct {
		view *snapshot.View
		err  error
	}
	exported := make(chan result, 1)
	go func() {
		v, err := Export(t.Context(), cfg, nil)
		exported <- result{v, err}
	}()
	copying(t, conn, 1)
	exec(t, other, "BEGIN; ALTER TABLE votes ADD extra int; DELETE FROM votes WHERE vote_id > 7")
	for _, reason := range []string{"gave way to a session", "another session holds a lock on the table"} {
		eventually(t, "the log says: "+reason, func() error {
			if len(exported) > 0 || strings.Contains(log.String(), reason) {
				return nil
			}
			return errors.New("not yet")
		})
	}
	exec(t, other, "COMMIT")
	r := <-exported
	if r.err != nil {
		t.Fatal(r.err)
	}
	columns := r.view.Shape().Columns
	if last := columns[len(columns)-1].Name; r.view.Rows() != 7 || last != "extra" {
		t.Errorf("exported %d rows with the last column %s", r.view.Rows(), last)
	}
	if n := strings.Count(log.String(), "\n"); n != 2 {
		t.Errorf("%d lines in the log:\n%s", n, log)
	}
}

// BenchmarkFirstCopy copies 100,000 votes from Postgres into memory. Before each of these copies, it runs a bare COPY of the
// same table, and discards the output. The metric ×COPY is the time of capture's copies divided by the time of the bare COPYs.
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
