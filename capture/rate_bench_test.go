package capture

import (
	"os"
	osexec "os/exec" // exec is a test's own
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// BenchmarkInsertRate is what following costs the application: 8 clients of pgbench that insert one vote a transaction
// into a durable server, with nobody following, and with each source that has the server do more. The kinds take turns of
// three seconds, five each, in one run; the medians, and their ratios to nobody's, are the result. Clients insert as fast
// as they can, with synchronous and with asynchronous commits, or together 100 times a second: there the time that an
// insert takes is the result.
//
//	go test ./capture -run '^$' -bench InsertRate -benchtime 1x
func BenchmarkInsertRate(b *testing.B) {
	bin, err := pgserver.Bin()
	if err != nil {
		b.Fatal(err)
	}
	pgbench := filepath.Join(bin, "pgbench")
	if _, err := os.Stat(pgbench); err != nil {
		b.Fatalf("pgbench comes with PostgreSQL's own programs: %v", err)
	}
	script := filepath.Join(b.TempDir(), "insert.sql")
	insert := `INSERT INTO votes (user_query, bot_response, evaluation_json, feedback_tags, comment)
VALUES ('How do I reset my password?', repeat('Open the settings, then choose Security. ', 20), '{"score": 4}', '{"Looks Good"}', 'thanks');
`
	if err := os.WriteFile(script, []byte(insert), 0o644); err != nil {
		b.Fatal(err)
	}
	s := pgserver.ForTest(b, pgserver.Options{Durable: true, Settings: map[string]string{"max_connections": "50", "max_wal_size": "4GB"}})
	url := s.URL("postgres")
	conn := connect(b, url)
	exec(b, conn, votes)
	for _, mode := range []struct {
		name, options string
		result        *regexp.Regexp
		unit          string
		flags         []string
	}{
		{"synchronous", "-c synchronous_commit=on", pgbenchRate, "inserts/s", nil},
		{"asynchronous", "-c synchronous_commit=off", pgbenchRate, "inserts/s", nil},
		{"100 a second", "-c synchronous_commit=on", pgbenchLatency, "ms", []string{"-R", "100"}},
	} {
		b.Run(mode.name, func(b *testing.B) {
			kinds := []string{"none", "notify", "logical"}
			results := map[string][]float64{}
			for b.Loop() {
				for range 5 {
					for _, kind := range kinds {
						cmd := osexec.Command(pgbench, append([]string{"-n", "-c", "8", "-j", "2", "-T", "3", "-f", script}, append(mode.flags, url)...)...)
						cmd.Env = append(os.Environ(), "PGOPTIONS="+mode.options)
						results[kind] = append(results[kind], insertRate(b, conn, url, kind, cmd, mode.result))
					}
				}
			}
			median := func(kind string) float64 {
				r := slices.Sorted(slices.Values(results[kind]))
				return r[len(r)/2]
			}
			for _, kind := range kinds {
				b.ReportMetric(median(kind), kind+"-"+mode.unit)
				if kind != "none" {
					b.ReportMetric(median(kind)/median("none"), kind+"/none")
				}
			}
		})
	}
}

var (
	pgbenchRate    = regexp.MustCompile(`tps = ([0-9.]+) \(without`)
	pgbenchLatency = regexp.MustCompile(`latency average = ([0-9.]+) ms`)
)

// insertRate runs pgbench against an empty table while a source (or none) follows it, and checks that it kept up.
func insertRate(b *testing.B, conn *pgx.Conn, url, kind string, pgbench *osexec.Cmd, result *regexp.Regexp) float64 {
	b.Helper()
	exec(b, conn, "TRUNCATE votes")
	exec(b, conn, "CHECKPOINT")
	var d *daemon
	if kind != "none" {
		cfg := config(b, url)
		cfg.Source, cfg.FlushDelay = kind, 100*time.Millisecond
		d = start(b, cfg)
		d.ready()
	}
	out, err := pgbench.CombinedOutput()
	if err != nil {
		b.Fatalf("pgbench: %v\n%s", err, out)
	}
	if d != nil {
		d.equal(conn, "votes", "vote_id")
		if err := d.stop(); err != nil {
			b.Fatal(err)
		}
		statements, err := postgres.TeardownSQL(b.Context(), conn, postgres.Name{Table: "votes"}, "")
		if err == nil {
			err = postgres.Apply(b.Context(), conn, statements)
		}
		if err != nil {
			b.Fatal(err)
		}
	}
	m := result.FindSubmatch(out)
	if m == nil {
		b.Fatalf("pgbench says no rate:\n%s", out)
	}
	rate, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return rate
}
