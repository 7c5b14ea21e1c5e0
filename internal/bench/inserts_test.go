package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"capture/internal/pgserver"
	"capture/store"
)

// BenchmarkInserts is what following costs the application: 8 clients of pgbench insert votes of 3 kB, one a transaction,
// as fast as they can, with nobody following and with each source that has the server do more, on the same machine.
func BenchmarkInserts(b *testing.B) {
	s, err := server()
	if err != nil {
		b.Fatal(err)
	}
	bin, err := pgserver.Bin()
	if err != nil {
		b.Fatal(err)
	}
	pgbench := program(bin, "pgbench")
	if pgbench == "" {
		b.Fatal("there is no pgbench, which comes with PostgreSQL's own programs")
	}
	script := filepath.Join(dir, "insert.sql")
	var answer strings.Builder
	for _, c := range block[:1200] { // as hex, which Postgres can't press small
		answer.WriteString(strconv.FormatInt(int64(c)+256, 16)[1:])
	}
	insert := `\set n random(1, 1000000000)
INSERT INTO votes (user_query, bot_response, evaluation_json, feedback_tags, comment, citations)
VALUES ('How do I reset password :n?', ':n ` + answer.String() + `', '{"relevance": 4, "groundedness": 0.5}', '{"Looks Good / Accurate & Clear"}', 'thanks',
	'[{"title": "Settings", "url": "https://example.com/:n", "score": 1}, {"title": "Security", "url": "https://example.com/security", "score": 2}]');
`
	if err := os.WriteFile(script, []byte(insert), 0o644); err != nil {
		b.Fatal(err)
	}
	for _, mode := range []struct {
		name, options string
		kinds         []string
	}{
		{"synchronous", "-c synchronous_commit=on", []string{"none", "logical", "notify"}},
		{"asynchronous", "-c synchronous_commit=off", []string{"none", "logical"}},
	} {
		b.Run(mode.name, func(b *testing.B) {
			admin := connect(b, s.URL("postgres"))
			sql(b, admin, "DROP DATABASE IF EXISTS inserts WITH (FORCE)")
			sql(b, admin, "CREATE DATABASE inserts")
			url := s.URL("inserts")
			sql(b, connect(b, url), votesTable)
			sum := make(map[string]float64)
			for b.Loop() {
				for _, kind := range mode.kinds {
					cmd := exec.Command(pgbench, "-n", "-c", "8", "-j", "2", "-T", "5", "-f", script, url)
					cmd.Env = append(os.Environ(), "PGOPTIONS="+mode.options)
					sum[kind] += insertRate(b, url, kind, cmd)
				}
			}
			for kind, rate := range sum {
				b.ReportMetric(rate/float64(b.N), kind+"-inserts/s")
			}
		})
	}
}

var pgbenchRate = regexp.MustCompile(`tps = ([0-9.]+) \(without`)

// insertRate runs pgbench against an empty table while a source (or none) follows it, and checks that it kept up.
func insertRate(b *testing.B, url, kind string, pgbench *exec.Cmd) float64 {
	b.Helper()
	conn := connect(b, url)
	sql(b, conn, "TRUNCATE votes")
	sql(b, conn, "CHECKPOINT")
	var d *daemon
	if kind != "none" {
		d = start(b, url, "--source="+kind)
		d.flushed("start")
	}
	out, err := pgbench.CombinedOutput()
	if err != nil {
		b.Fatalf("pgbench: %v\n%s", err, out)
	}
	if d != nil {
		d.command("snapshot")
		m, err := store.ReadManifest(d.path)
		if err != nil {
			b.Fatal(err)
		}
		var n int
		if err := conn.QueryRow(b.Context(), "SELECT count(*) FROM votes").Scan(&n); err != nil || n != m.Rows {
			b.Fatalf("the file has %d rows of %d (%v)", m.Rows, n, err)
		}
		d.stop()
		os.MkdirAll(d.cmd.Dir, 0o755)
		d.command("teardown")
		os.RemoveAll(d.cmd.Dir)
	}
	found := pgbenchRate.FindSubmatch(out)
	if found == nil {
		b.Fatalf("pgbench says no rate:\n%s", out)
	}
	rate, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return rate
}
