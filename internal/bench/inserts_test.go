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
)

// BenchmarkInserts measures how much a follower of the table slows the application. 8 pgbench clients insert votes of 3 kB
// as fast as they can, with one vote per transaction. They run first without a follower, then with pg_recvlogical, and then
// with capture, which uses the source "logical". If commits are synchronous, they also run with capture's source "notify".
// pg_recvlogical discards what it reads, so its cost is the minimum for any follower by logical replication. Everything runs
// on the same machine.
func BenchmarkInserts(b *testing.B) {
	s, err := server()
	if err != nil {
		b.Fatal(err)
	}
	bin, err := pgserver.Bin()
	if err != nil {
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
			execSQL(b, admin, "DROP DATABASE IF EXISTS inserts WITH (FORCE)")
			execSQL(b, admin, "CREATE DATABASE inserts")
			url := s.URL("inserts")
			conn := connect(b, url)
			execSQL(b, conn, pgserver.VotesTable)
			execSQL(b, conn, "CREATE PUBLICATION recvlogical FOR TABLE votes")
			sum := make(map[string]float64)
			for b.Loop() {
				for _, kind := range mode.kinds {
					if kind == "recvlogical" && clientProgram(bin, "pg_recvlogical") == "" {
						b.Log("skipping recvlogical: pg_recvlogical is not installed")
						continue
					}
					sum[kind] += insertRate(b, url, kind, mode.options)
				}
			}
			for kind, rate := range sum {
				b.ReportMetric(rate/float64(b.N), kind+"-inserts/s")
			}
		})
	}
}

// insertRate empties the table, and returns the rate of pgbench while a follower of this kind follows the table. The kind
// "none" means no follower. insertRate checks that the follower got all rows.
func insertRate(b *testing.B, url, kind, options string) float64 {
	b.Helper()
	conn := connect(b, url)
	execSQL(b, conn, "TRUNCATE votes")
	execSQL(b, conn, "CHECKPOINT")
	stop := func() {}
	switch kind {
	case "none":
	case "recvlogical":
		stop = startRecvlogical(b, url, conn)
	default:
		stop = startCapture(b, url, conn, kind)
	}
	rate := runInserts(b, url, options)
	stop()
	return rate
}

var pgbenchRate = regexp.MustCompile(`tps = ([0-9.]+) \(without`)

// runInserts lets 8 clients of pgbench insert votes for 5 seconds. options are the settings of the clients' sessions.
// runInserts returns the number of votes per second.
func runInserts(b *testing.B, url, options string) float64 {
	b.Helper()
	bin, err := pgserver.Bin()
	if err != nil {
		b.Fatal(err)
	}
	pgbench := clientProgram(bin, "pgbench")
	if pgbench == "" {
		b.Fatal("pgbench is not installed; it is among PostgreSQL's client programs")
	}
	cmd := exec.Command(pgbench, "-n", "-c", "8", "-j", "2", "-T", "5", "-f", insertScript(b), url)
	cmd.Env = append(os.Environ(), "PGOPTIONS="+options)
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("pgbench: %v\n%s", err, out)
	}
	found := pgbenchRate.FindSubmatch(out)
	if found == nil {
		b.Fatalf("pgbench printed no rate:\n%s", out)
	}
	rate, err := strconv.ParseFloat(string(found[1]), 64)
	if err != nil {
		b.Fatal(err)
	}
	return rate
}

// insertScript writes a script for pgbench that inserts a vote of 3 kB, and returns its path.
func insertScript(b *testing.B) string {
	b.Helper()
	var answer strings.Builder
	for _, c := range randomBlock[:1200] { // as hex, which Postgres cannot compress much
		answer.WriteString(strconv.FormatInt(int64(c)+256, 16)[1:])
	}
	insert := `\set n random(1, 1000000000)
INSERT INTO votes (user_query, bot_response, evaluation_json, feedback_tags, comment, citations)
VALUES ('How do I reset password :n?', ':n ` + answer.String() + `', '{"relevance": 4, "groundedness": 0.5}', '{"Looks Good / Accurate & Clear"}', 'thanks',
	'[{"title": "Settings", "url": "https://example.com/:n", "score": 1}, {"title": "Security", "url": "https://example.com/security", "score": 2}]');
`
	path := filepath.Join(dir, "insert.sql")
	if err := os.WriteFile(path, []byte(insert), 0o644); err != nil {
		b.Fatal(err)
	}
	return path
}

// startCapture starts capture with a source. The returned function checks that the file has all rows, and removes what the source
// created in the database.
func startCapture(b *testing.B, url string, conn *pgx.Conn, source string) (stop func()) {
	b.Helper()
	d := startDaemon(b, url, "--source="+source)
	d.waitFlush("start")
	return func() {
		d.checkRows(conn)
		d.stop()
		os.MkdirAll(d.cmd.Dir, 0o755)
		d.runCommand("teardown")
		os.RemoveAll(d.cmd.Dir)
	}
}

// startRecvlogical starts pg_recvlogical, which discards what it reads. The returned function waits until
// the server has sent all changes to pg_recvlogical. Then it stops pg_recvlogical and drops the slot.
func startRecvlogical(b *testing.B, url string, conn *pgx.Conn) (stop func()) {
	b.Helper()
	bin, err := pgserver.Bin()
	if err != nil {
		b.Fatal(err)
	}
	const slot = "recvlogical"
	execSQL(b, conn, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot)
	var stderr strings.Builder
	cmd := exec.Command(clientProgram(bin, "pg_recvlogical"), "-d", url, "--slot", slot, "--start", "--no-loop", "-f", os.DevNull,
		"-o", "proto_version=1", "-o", "publication_names=recvlogical")
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	// waitSlot waits until an SQL condition is true. The condition can use the columns of pg_replication_slots and
	// pg_stat_replication for the slot and its walsender.
	waitSlot := func(condition string) {
		b.Helper()
		for begun, met := time.Now(), false; !met; time.Sleep(10 * time.Millisecond) {
			if err := conn.QueryRow(b.Context(), "SELECT EXISTS (SELECT FROM pg_replication_slots LEFT JOIN pg_stat_replication ON pid = active_pid WHERE slot_name = $1 AND "+condition+")", slot).Scan(&met); err != nil {
				b.Fatal(err)
			}
			if time.Since(begun) > time.Minute {
				b.Fatalf("pg_recvlogical's slot did not reach %s within a minute: %s", condition, stderr.String())
			}
		}
	}
	waitSlot("state = 'streaming'")
	return func() {
		var inserted string
		if err := conn.QueryRow(b.Context(), "SELECT pg_current_wal_flush_lsn()").Scan(&inserted); err != nil {
			b.Fatal(err)
		}
		waitSlot("sent_lsn >= '" + inserted + "'")
		_ = cmd.Process.Signal(os.Interrupt) // fails only if the process has exited, which Wait reports
		if err := cmd.Wait(); err != nil {
			b.Fatalf("pg_recvlogical: %v: %s", err, stderr.String())
		}
		waitSlot("NOT active")
		execSQL(b, conn, "SELECT pg_drop_replication_slot($1)", slot)
	}
}
