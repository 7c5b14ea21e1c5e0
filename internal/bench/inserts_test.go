package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/store"
)

// BenchmarkInserts is what following costs the application: 8 clients of pgbench insert votes of 3 kB, one a transaction,
// as fast as they can, with nobody following, with each source that has the server do more, and with pg_recvlogical, which
// does nothing with what it reads: the least that any follower by logical replication costs. All are on the same machine.
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
		{"synchronous", "-c synchronous_commit=on", []string{"none", "recvlogical", "logical", "notify"}},
		{"asynchronous", "-c synchronous_commit=off", []string{"none", "recvlogical", "logical"}},
	} {
		b.Run(mode.name, func(b *testing.B) {
			admin := connect(b, s.URL("postgres"))
			sql(b, admin, "DROP DATABASE IF EXISTS inserts WITH (FORCE)")
			sql(b, admin, "CREATE DATABASE inserts")
			url := s.URL("inserts")
			conn := connect(b, url)
			sql(b, conn, votesTable)
			sql(b, conn, "CREATE PUBLICATION recvlogical FOR TABLE votes")
			sum := make(map[string]float64)
			for b.Loop() {
				for _, kind := range mode.kinds {
					if kind == "recvlogical" && program(bin, "pg_recvlogical") == "" {
						b.Log("recvlogical is left out: there is no pg_recvlogical")
						continue
					}
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
	end := func() {}
	switch kind {
	case "none":
	case "recvlogical":
		end = followToNothing(b, url, conn)
	default:
		end = followByCapture(b, url, conn, kind)
	}
	out, err := pgbench.CombinedOutput()
	if err != nil {
		b.Fatalf("pgbench: %v\n%s", err, out)
	}
	end()
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

// followByCapture follows the table by a source until the end, which checks that the file has all rows.
func followByCapture(b *testing.B, url string, conn *pgx.Conn, source string) (end func()) {
	b.Helper()
	d := start(b, url, "--source="+source)
	d.flushed("start")
	return func() {
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
}

// followToNothing follows the table by pg_recvlogical until the end, which checks that it has been sent everything.
func followToNothing(b *testing.B, url string, conn *pgx.Conn) (end func()) {
	b.Helper()
	bin, err := pgserver.Bin()
	if err != nil {
		b.Fatal(err)
	}
	const slot = "recvlogical"
	sql(b, conn, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot)
	var said strings.Builder
	cmd := exec.Command(program(bin, "pg_recvlogical"), "-d", url, "--slot", slot, "--start", "--no-loop", "-f", os.DevNull,
		"-o", "proto_version=1", "-o", "publication_names=recvlogical")
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	// await waits for the server to say of the slot's reader what the condition asks.
	await := func(condition string) {
		b.Helper()
		for begun, met := time.Now(), false; !met; time.Sleep(10 * time.Millisecond) {
			if err := conn.QueryRow(b.Context(), "SELECT EXISTS (SELECT FROM pg_replication_slots LEFT JOIN pg_stat_replication ON pid = active_pid WHERE slot_name = $1 AND "+condition+")", slot).Scan(&met); err != nil {
				b.Fatal(err)
			}
			if time.Since(begun) > time.Minute {
				b.Fatalf("pg_recvlogical's slot never had %s: %s", condition, said.String())
			}
		}
	}
	await("state = 'streaming'")
	return func() {
		var inserted string
		if err := conn.QueryRow(b.Context(), "SELECT pg_current_wal_flush_lsn()").Scan(&inserted); err != nil {
			b.Fatal(err)
		}
		await("sent_lsn >= '" + inserted + "'")
		_ = cmd.Process.Signal(os.Interrupt) // fails only where it has ended, which Wait says
		if err := cmd.Wait(); err != nil {
			b.Fatalf("pg_recvlogical: %v: %s", err, said.String())
		}
		await("NOT active")
		sql(b, conn, "SELECT pg_drop_replication_slot($1)", slot)
	}
}
