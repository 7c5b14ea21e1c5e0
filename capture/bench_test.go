package capture

import (
	"context"
	"fmt"
	"os"
	osexec "os/exec"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/snapshot"
	"capture/store"
)

// generateVotes makes votes of real size: some 3 kB of JSON each.
const generateVotes = `INSERT INTO votes (user_query, bot_response, evaluation_json, feedback_tags, comment, citations)
	SELECT 'How do I ' || md5(i::text) || '?', (SELECT string_agg(md5((i * 100 + j)::text), ' ') FROM generate_series(1, 60) j),
		jsonb_build_object('relevance', mod(i, 5), 'groundedness', 0.5, 'model', 'gpt'), ARRAY['Looks Good / Accurate & Clear'],
		CASE WHEN mod(i, 3) = 0 THEN 'a comment ' || i END,
		(SELECT jsonb_agg(jsonb_build_object('title', md5(j::text), 'url', 'https://example.com/' || j, 'score', j)) FROM generate_series(1, 5) j)
	FROM generate_series(%d, %d) i`

// BenchmarkFirstCopy copies 100,000 votes from Postgres into memory (encode), and reads the same with COPY to nothing
// (copy), in turn.
func BenchmarkFirstCopy(b *testing.B) {
	const rows = 100_000
	url := pgserver.Database(b)
	conn := connect(b, url)
	exec(b, conn, votes)
	exec(b, conn, fmt.Sprintf(generateVotes, 1, rows))
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
		v, err := Export(b.Context(), cfg)
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

// BenchmarkStream drains a slot that was filled before.
func BenchmarkStream(b *testing.B) {
	for _, c := range []struct {
		name     string
		rows, tx int
	}{{"tx=1", 100_000, 1}, {"tx=100", 200_000, 100}, {"tx=200000", 200_000, 200_000}} {
		b.Run(c.name, func(b *testing.B) { benchmarkStream(b, c.rows, c.tx) })
	}
}

func benchmarkStream(b *testing.B, rows, perTx int) {
	url := pgserver.Database(b)
	conn := connect(b, url)
	exec(b, conn, votes)
	exec(b, conn, fmt.Sprintf(`CREATE PROCEDURE fill() LANGUAGE plpgsql AS $$ BEGIN
		FOR n IN 1..%d LOOP
			INSERT INTO votes (user_query, bot_response, evaluation_json, feedback_tags)
				SELECT 'q', repeat('x', 300), '{"a": 1}', '{good}' FROM generate_series(1, %d);
			COMMIT;
		END LOOP; END $$`, rows/perTx, perTx))
	cfg := config(b, url)
	cfg.Logger = hclog.NewNullLogger()
	file, err := store.Open(filepath.Join(b.TempDir(), "feedback.json"), store.Owner{})
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	var took, bare time.Duration
	var bytes int64
	var allocs uint64
	for b.Loop() {
		exec(b, conn, "TRUNCATE votes")
		t := snapshot.NewTable()
		l := newLogical(New(cfg, file))
		enc := slotBefore(b, l, t)
		exec(b, conn, "SELECT pg_create_logical_replication_slot('bare_'||pg_backend_pid(), 'pgoutput')")
		exec(b, conn, "CALL fill()")
		var target pglogrepl.LSN
		if err := l.side.ask(b.Context(), func(ctx context.Context, c *pgx.Conn) (err error) {
			target, err = insertPosition(ctx, c)
			return err
		}); err != nil {
			b.Fatal(err)
		}
		ctx, cancel := context.WithCancel(b.Context())
		done := make(chan error, 1)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		start := time.Now()
		go func() { done <- l.stream(ctx, t, enc) }()
		for pglogrepl.LSN(l.applied.Load()) < target {
			select {
			case err := <-done:
				b.Fatal(err)
			case <-time.After(time.Millisecond):
			}
		}
		took += time.Since(start)
		runtime.ReadMemStats(&after)
		allocs, bytes = after.Mallocs-before.Mallocs, t.View().Bytes()
		cancel()
		<-done
		bare += recvlogical(b, url, conn, l.publication, target)
		l.hangUp()
		l.side.close()
	}
	n := float64(b.N)
	b.ReportMetric(float64(rows)*n/took.Seconds(), "rows/s")
	b.ReportMetric(float64(rows/perTx)*n/took.Seconds(), "tx/s")
	b.ReportMetric(float64(bytes)*n/took.Seconds()/1e6, "MB/s")
	b.ReportMetric(float64(allocs)/float64(rows), "allocs/row")
	if bare > 0 {
		b.ReportMetric(bare.Seconds()/took.Seconds(), "×pg_recvlogical")
	}
}

// recvlogical drains a slot with the same changes by pg_recvlogical into nothing; 0 where the machine has none.
func recvlogical(b *testing.B, url string, conn *pgx.Conn, publication string, target pglogrepl.LSN) time.Duration {
	slot := fmt.Sprint("bare_", conn.PgConn().PID())
	defer exec(b, conn, "SELECT pg_drop_replication_slot($1)", slot)
	bin, err := pgserver.Bin()
	if err != nil {
		b.Fatal(err)
	}
	program := filepath.Join(bin, "pg_recvlogical")
	if _, err := os.Stat(program); err != nil {
		return 0
	}
	start := time.Now()
	out, err := osexec.CommandContext(b.Context(), program, "-d", url, "--slot", slot, "--start", "--no-loop", "-f", os.DevNull,
		"--endpos", target.String(), "-o", "proto_version=1", "-o", "publication_names="+publication).CombinedOutput()
	if err != nil {
		b.Fatalf("pg_recvlogical: %v: %s", err, out)
	}
	return time.Since(start)
}

// slotBefore takes a source to where its stream starts.
func slotBefore(b *testing.B, l *logical, t *snapshot.Table) *snapshot.Encoder {
	b.Helper()
	ctx := b.Context()
	if err := l.prepare(ctx); err != nil {
		b.Fatal(err)
	}
	origin, err := l.connect(ctx)
	if err != nil {
		b.Fatal(err)
	}
	slot, err := l.createSlot(ctx, t, origin)
	if err != nil {
		b.Fatal(err)
	}
	enc, err := l.copy(ctx, t, slot, origin)
	if err != nil {
		b.Fatal(err)
	}
	return enc
}
