package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os/exec"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/faultproxy"
	"capture/internal/objectserver"
	"capture/store/manifest"
)

// These are the daemon's log messages about copies off the machine.
const (
	copiesBegin = "copying off the machine"
	copied      = "copied off the machine"
	copyProven  = "copy off the machine is as it was written"
)

// BenchmarkCopies measures what copies off the machine cost, and how long they take. The object storage runs on the same
// machine.
func BenchmarkCopies(b *testing.B) {
	b.Run("cost", benchmarkCopyCost)
	n := tableRows(b)
	for name, rows := range map[string]int{"small": 1000, "large": n} {
		b.Run("time/"+name, func(b *testing.B) { benchmarkCopyTime(b, rows) })
	}
}

// benchmarkCopyCost compares a daemon that makes no copies with a daemon that uploads a copy and reads it back during the
// measurement. This is the worst case: usually, a daemon spends at most a tenth of its time on copies. The object storage is
// versitygw, because Azurite needs more processor time than capture.
func benchmarkCopyCost(b *testing.B) {
	n := tableRows(b)
	url := filledDatabase(b, "copies", n)
	conn := connect(b, url)
	costs := map[string]func(d *daemon) float64{
		// write-ms is the time that the daemon takes to write the file after a change of one row.
		"write-ms": func(d *daemon) float64 {
			var took []float64
			for range 20 {
				execSQL(b, conn, "UPDATE votes SET comment = $1 WHERE vote_id = $2", fmt.Sprint("changed ", rand.Int64()), 1+rand.IntN(n))
				took = append(took, d.waitFlush("change").Millis)
			}
			return quantile(took, 0.5)
		},
		// stream-rows/s is the number of changed rows per second. Five transactions each change a tenth of the rows. After
		// each of them, the benchmark waits until the file is durable.
		"stream-rows/s": func(d *daemon) float64 {
			const times = 5
			begun := time.Now()
			for range times {
				execSQL(b, conn, "UPDATE votes SET comment = $1 WHERE vote_id <= $2", fmt.Sprint("all ", rand.Int64()), n/10)
				d.waitFlush("change")
			}
			return float64(times*(n/10)) / time.Since(begun).Seconds()
		},
		"inserts/s": func(d *daemon) float64 { return runInserts(b, url, "") },
	}
	sum := make(map[string]float64)
	var measured, copying time.Duration
	for b.Loop() {
		for name, measure := range costs {
			for _, with := range rand.Perm(2) {
				execSQL(b, conn, "CHECKPOINT")
				if with == 0 {
					d := startDaemon(b, url, "--keep=0", "--flush-interval=24h")
					d.waitIdle(d.waitFlush("start"))
					sum["none-"+name] += measure(d)
					d.checkRows(conn)
					d.stop()
				} else {
					to := newCopyTarget(b, "s3")
					to.proxy.Refuse() // no copy is possible until the measurement begins
					d := startDaemon(b, url, "--keep=0", "--flush-interval=24h", "--copy-to="+to.URL)
					d.waitIdle(d.waitFlush("start"))
					if err := to.proxy.Accept(); err != nil {
						b.Fatal(err)
					}
					begun := d.waitCopyEvent(copiesBegin).at
					sum["s3-"+name] += measure(d)
					took := time.Since(begun)
					measured += took
					copying += min(took, d.waitCopyEvent(copyProven).at.Sub(begun))
					d.checkRows(conn)
					d.stop()
					to.drop()
				}
				execSQL(b, conn, "DELETE FROM votes WHERE vote_id > $1", n)
				execSQL(b, conn, "VACUUM votes")
			}
		}
	}
	for name, value := range sum {
		b.ReportMetric(value/float64(b.N), name)
	}
	b.ReportMetric(100*copying.Seconds()/measured.Seconds(), "%-copying")
}

// checkRows makes the daemon write the file, and checks that the file has as many rows as the table.
func (d *daemon) checkRows(conn *pgx.Conn) {
	d.b.Helper()
	d.runCommand("snapshot")
	var rows int
	m, err := manifest.Read(d.path)
	if err == nil {
		err = conn.QueryRow(d.b.Context(), "SELECT count(*) FROM votes").Scan(&rows)
	}
	if err != nil || rows != m.Rows {
		d.b.Fatalf("the file has %d rows of %d (%v)", m.Rows, rows, err)
	}
}

// benchmarkCopyTime measures the time from a commit until a copy off the machine contains the change. As a baseline, it then
// measures a restore of the file. After that, it stops the daemon, removes the daemon's folder, and measures a restore of
// the copy. Both restores are into an empty database, and restoreTime checks the restored rows.
func benchmarkCopyTime(b *testing.B, n int) {
	const delay = 30 * time.Second // time from the change until capture may begin its upload
	url := votesDatabase(b, n)
	conn := connect(b, url)
	took := map[string]float64{"delay-s": delay.Seconds()}
	var restores []float64 // seconds of each restore of the file
	for b.Loop() {
		for _, kind := range objectserver.Kinds {
			if kind == "azblob" && n > 200_000 {
				b.Log("skipping Azurite: it keeps the copies in memory")
				continue
			}
			to := newCopyTarget(b, kind)
			d := startDaemon(b, url, "--flush-interval=24h", "--copy-to="+to.URL)
			rest := 9 * d.waitCopyEvent(copyProven).millis // milliseconds for which capture now pauses; copies may take at most a tenth of the time
			time.Sleep(time.Duration(rest)*time.Millisecond - delay)
			execSQL(b, conn, "UPDATE votes SET comment = $1 WHERE vote_id = $2", fmt.Sprint("changed ", rand.Int64()), 1+rand.IntN(n))
			committed := time.Now()
			took[kind+"-copied-s"] += d.waitCopyEvent(copied).at.Sub(committed).Seconds()
			restores = append(restores, restoreTime(b, d, d.path))
			d.stop()
			took[kind+"-restore-s"] += restoreTime(b, d, to.URL)
			to.drop()
		}
	}
	for _, kind := range objectserver.Kinds {
		if took[kind+"-copied-s"] > 0 {
			took[kind+"-copied-s"] /= float64(b.N)
			took[kind+"-restore-s"] /= float64(b.N)
			took[kind+"-restorable-s"] = took[kind+"-copied-s"] + took[kind+"-restore-s"]
		}
	}
	took["file-restore-s"] = quantile(restores, 0.5)
	took["delay-and-file-restore-s"] = delay.Seconds() + took["file-restore-s"]
	for name, seconds := range took {
		b.ReportMetric(seconds, name)
	}
}

// restoreTime returns how many seconds `capture restore` takes to restore a file or URL into an empty database. It runs
// `capture restore` in another folder, because d.stop may already have removed the daemon's folder. It checks that the
// restored rows equal the rows of the table that the daemon follows.
func restoreTime(b *testing.B, d *daemon, from string) float64 {
	b.Helper()
	s, err := server()
	if err != nil {
		b.Fatal(err)
	}
	admin := connect(b, s.URL("postgres"))
	execSQL(b, admin, "CREATE DATABASE restored")
	cmd := exec.Command(d.cmd.Path, "restore", "--create", "--yes", "--database-url="+s.URL("restored"), from)
	cmd.Dir = dir
	begun := time.Now()
	out, err := cmd.CombinedOutput()
	took := time.Since(begun)
	if err != nil {
		b.Fatalf("capture restore: %v\n%s", err, out)
	}
	if got, want := rowsDigest(b, s.URL("restored")), rowsDigest(b, d.url); got != want {
		b.Fatalf("the restored rows are %s, want %s", got, want)
	}
	execSQL(b, admin, "DROP DATABASE restored")
	return took.Seconds()
}

// rowsDigest returns the number of votes, and a sum of the hashes of their rows.
func rowsDigest(b *testing.B, url string) string {
	b.Helper()
	conn := connect(b, url)
	defer conn.Close(context.Background())
	var digest string
	err := conn.QueryRow(b.Context(), "SELECT count(*) || ' rows, ' || sum(hashtextextended(row_to_json(v)::text, 0)) FROM votes v").Scan(&digest)
	if err != nil {
		b.Fatal(err)
	}
	return digest
}

// copyTarget is a bucket behind a proxy.
type copyTarget struct {
	*objectserver.Bucket
	b     *testing.B
	proxy *faultproxy.Proxy
}

// newCopyTarget creates a bucket and its proxy. It sets the environment variables that make capture use the bucket through
// the proxy.
func newCopyTarget(b *testing.B, kind string) *copyTarget {
	b.Helper()
	bucket := objectserver.NewBucket(b, kind)
	proxy, err := faultproxy.New(bucket.Addr)
	if err != nil {
		b.Fatal(err)
	}
	for name, value := range bucket.Through(proxy.Addr()) {
		b.Setenv(name, value)
	}
	return &copyTarget{bucket, b, proxy}
}

// drop removes the copies, because they could fill the disk.
func (t *copyTarget) drop() {
	t.b.Helper()
	path, err := binary()
	if err != nil {
		t.b.Fatal(err)
	}
	if out, err := exec.Command(path, "history", "--copy-to="+t.URL, "--drop=all", "--yes").CombinedOutput(); err != nil {
		t.b.Fatalf("capture history: %v\n%s", err, out)
	}
	t.proxy.Close()
}

// waitCopyEvent waits for the next log line with this message.
func (d *daemon) waitCopyEvent(message string) copyEvent {
	d.b.Helper()
	timeout := time.After(waitTimeout)
	for {
		select {
		case e := <-d.copies:
			if e.message == message {
				return e
			}
		case <-d.output:
			d.b.Fatalf("capture ended:\n%s", d.last.String())
		case <-timeout:
			d.b.Fatalf("capture did not log %q within %s", message, waitTimeout)
		}
	}
}
