package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
)

// BenchmarkReconnect measures what a lost connection costs: the time from the first new connection until capture follows the
// table again, and the bytes that the server sends in this time. A share of the rows is updated while the connection is
// lost. The baseline is the first copy by the same daemon. For comparison, BenchmarkReconnect measures go-pq-cdc, which
// resumes from a permanent slot. The server retains WAL for this slot while go-pq-cdc is not connected.
func BenchmarkReconnect(b *testing.B) {
	n := tableRows(b)
	url := votesDatabase(b, n)
	conn := connect(b, url)
	s, err := server()
	if err != nil {
		b.Fatal(err)
	}
	for _, share := range []struct {
		name   string
		oneOf  int // one of every oneOf rows is updated; 0 means that no row is updated
		others bool
	}{{"none", 0, false}, {"1%", 100, true}, {"10%", 10, true}, {"50%", 2, true}} {
		b.Run(share.name, func(b *testing.B) {
			sum := map[string]float64{}
			for b.Loop() {
				r := newRelay(b, s.Addr())
				r.open(b)
				d := startDaemon(b, pgserver.URL(r.addr, fmt.Sprint("votes_", n)), "--source=logical")
				followed := d.waitFollowing()
				sum["copy-s"] += r.since(followed)
				sum["copy-MB"] += float64(r.sent.Load()) / 1e6
				file := d.waitFlush("start")
				waitHorizon(b, d)
				update := func(round int) {
					if share.oneOf > 0 {
						execSQL(b, conn, "UPDATE votes SET comment = $1 WHERE vote_id % $2 = $3", fmt.Sprint("changed ", time.Now()), share.oneOf, round)
					}
				}
				r.cut()
				update(0)
				time.Sleep(6 * time.Second) // meanwhile, capture returns the garbage of the copy to the system, so the garbage does not count in the peak
				d.resetPeak()
				r.open(b)
				followed = d.waitFollowing()
				sum["capture-s"] += r.since(followed)
				sum["capture-MB"] += float64(r.sent.Load()) / 1e6
				sum["peak/file"] += float64(d.memoryKB("VmHWM")) * 1024 / float64(file.Bytes)
				d.stop()
				r.cut()
				if share.others {
					if seconds, megabytes, ok := resumePermanentSlot(b, conn, r, n, n/share.oneOf, func() { update(1) }); ok {
						sum["go-pq-cdc-s"] += seconds
						sum["go-pq-cdc-MB"] += megabytes
					}
				}
			}
			for unit, v := range sum {
				b.ReportMetric(v/float64(b.N), unit)
			}
		})
	}
	execSQL(b, conn, "VACUUM (FULL, FREEZE, ANALYZE) votes") // for the benchmarks that come after
	execSQL(b, conn, "CHECKPOINT")
}

// waitHorizon waits until the horizon of the rows in the daemon's memory is higher than the IDs of all transactions that have
// ended so far. The daemon reads a new horizon every two seconds and for each `capture snapshot`, but uses it only after the
// stream has passed the horizon's WAL position. `capture snapshot` waits until the stream has passed the current position. So
// waitHorizon runs `capture snapshot` before and after each of two pauses, which are longer than two seconds.
func waitHorizon(b *testing.B, d *daemon) {
	b.Helper()
	for range 2 {
		d.runCommand("snapshot")
		time.Sleep(2500 * time.Millisecond)
	}
	d.runCommand("snapshot")
}

// resumePermanentSlot creates a permanent slot, and calls change, which updates changeCount of the rowCount rows of the
// table. It then lets go-pq-cdc resume from the slot, and returns the seconds and megabytes until go-pq-cdc has received all
// changes. If the program cannot be built or fails, resumePermanentSlot logs the error and returns false.
func resumePermanentSlot(b *testing.B, conn *pgx.Conn, r *relay, rowCount, changeCount int, change func()) (seconds, megabytes float64, ok bool) {
	b.Helper()
	program := filepath.Join(b.TempDir(), "go-pq-cdc")
	build := exec.Command("go", "build", "-o", program, ".")
	build.Dir = "testdata/go-pq-cdc"
	if out, err := build.CombinedOutput(); err != nil {
		b.Logf("skipping go-pq-cdc: %v: %s", err, out)
		return 0, 0, false
	}
	const slot = "resumed"
	execSQL(b, conn, "CREATE PUBLICATION resumed FOR TABLE votes")
	execSQL(b, conn, "SELECT pg_create_logical_replication_slot($1, 'pgoutput')", slot)
	defer func() {
		execSQL(b, conn, "SELECT pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = $1 AND active", slot)
		for begun, active := time.Now(), true; active && time.Since(begun) < time.Minute; time.Sleep(10 * time.Millisecond) {
			if err := conn.QueryRow(b.Context(), "SELECT active FROM pg_replication_slots WHERE slot_name = $1", slot).Scan(&active); err != nil {
				b.Fatal(err)
			}
		}
		execSQL(b, conn, "SELECT pg_drop_replication_slot($1)", slot)
		execSQL(b, conn, "DROP PUBLICATION resumed")
	}()
	change()
	r.open(b)
	defer r.cut()
	ctx, cancel := context.WithTimeout(b.Context(), waitTimeout)
	defer cancel()
	var stderr strings.Builder
	cmd := exec.CommandContext(ctx, program, pgserver.URL(r.addr, fmt.Sprint("votes_", rowCount)), slot, "resumed", "0/0", strconv.Itoa(changeCount))
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil || !strings.HasPrefix(string(out), fmt.Sprint(changeCount, " ")) {
		b.Logf("go-pq-cdc is left out: %v: %s%s", err, out, stderr.String())
		return 0, 0, false
	}
	return r.since(time.Now()), float64(r.sent.Load()) / 1e6, true
}
