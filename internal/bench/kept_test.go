package main

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"capture/snapshot"
	"capture/store"
	"capture/store/manifest"
)

// BenchmarkKept measures how long it takes to keep the file (as a hard link), to compress it, and to read it back. It
// measures these steps first alone, and then while capture follows a table. The benchmark takes long for a large table, so
// it runs only if CAPTURE_BENCH_KEPT is set (make bench KEPT=1).
func BenchmarkKept(b *testing.B) {
	if os.Getenv("CAPTURE_BENCH_KEPT") == "" {
		b.Skip("set CAPTURE_BENCH_KEPT=1, or KEPT=1 for make bench")
	}
	b.Run("alone", benchmarkKeptAlone)
	b.Run("beside", benchmarkKeptBeside)
}

// benchmarkKeptAlone keeps, compresses and reads back the file while nothing else runs.
func benchmarkKeptAlone(b *testing.B) {
	view := exportTable(b, votesDatabase(b, tableRows(b)))
	path := filepath.Join(b.TempDir(), "feedback.json")
	took := map[string]time.Duration{}
	measure := func(name string, f func() error) {
		begun := time.Now()
		if err := f(); err != nil {
			b.Fatal(err)
		}
		took[name] += time.Since(begun)
	}
	compressed := int64(0)
	for b.Loop() {
		f, err := store.Open(path, store.Owner{PID: os.Getpid()})
		if err != nil {
			b.Fatal(err)
		}
		write := func(v *snapshot.View, reason manifest.Reason) func() error {
			return func() error { _, err := f.Write(v, reason); return err }
		}
		measure("write", write(view, store.ReasonStart))
		measure("link", f.KeepCurrent)
		measure("gzip", func() error { _, err := f.Kept().Compress(b.Context()); return err })
		for _, s := range f.Kept().List() {
			compressed = s.DiskBytes
			if err := s.Drop(); err != nil {
				b.Fatal(err)
			}
		}
		measure("read-back", func() error {
			damage, err := f.ReadBack(b.Context())
			if damage != "" {
				b.Fatal(damage)
			}
			return err
		})
		// A Write that loses all rows reads the file, keeps it and writes an empty file.
		empty := snapshot.NewTable()
		empty.Load(view.Shape(), view.Origin())
		if err := empty.Commit(view.Position()); err != nil {
			b.Fatal(err)
		}
		measure("loss", write(empty.View(), store.ReasonChange))
		if states := f.Kept().List(); len(states) != 1 || states[0].Loss == nil {
			b.Fatalf("the kept states are %+v", states)
		} else if err := states[0].Drop(); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
	for name, t := range took {
		b.ReportMetric(milliseconds(t)/float64(b.N), name+"-ms")
	}
	b.ReportMetric(float64(view.Bytes())/1e6/(took["gzip"].Seconds()/float64(b.N)), "gzip-MB/s")
	b.ReportMetric(float64(view.Bytes())/float64(compressed), "ratio")
	b.ReportMetric(float64(view.Bytes()), "file-bytes")
}

// benchmarkKeptBeside changes rows while a daemon follows the table, with two daemons in turn. One daemon keeps no states. The
// other daemon writes the file each second, so it keeps, compresses and reads back states all the time. CAPTURE_BENCH_UPDATES
// is the time for which rows change with each daemon.
func benchmarkKeptBeside(b *testing.B) {
	span, err := time.ParseDuration(cmp.Or(os.Getenv("CAPTURE_BENCH_UPDATES"), "10s"))
	if err != nil {
		b.Fatalf("CAPTURE_BENCH_UPDATES: %v", err)
	}
	n := tableRows(b)
	url := votesDatabase(b, n)
	conn := connect(b, url)
	sum := map[string]float64{}
	for b.Loop() {
		for name, args := range map[string][]string{
			"without": {"--keep=0", "--flush-interval=24h"},
			"with":    {"--keep=1h", "--flush-interval=1s"},
		} {
			d := startDaemon(b, url, args...)
			f := d.waitFlush("start")
			d.waitIdle(f)
			d.resetPeak()
			changed, begun := 0, time.Now()
			for ; time.Since(begun) < span; changed += 100 {
				execSQL(b, conn, `UPDATE votes SET comment = 'changed ' || $1
					WHERE vote_id IN (SELECT 1 + floor(random() * $2)::int FROM generate_series(1, 100))`, fmt.Sprint(rand.Int64()), n)
			}
			sum[name+"-updates/s"] += float64(changed) / time.Since(begun).Seconds()
			// stream-rows/s is the rate for a transaction that changes a tenth of the rows. The time is from the start of
			// the transaction until the file is durable.
			d.runCommand("snapshot")
			begun = time.Now()
			execSQL(b, conn, "UPDATE votes SET comment = $1 WHERE vote_id <= $2", fmt.Sprint("all ", rand.Int64()), n/10)
			committed := time.Now()
			for flushed := d.waitFlush("change"); flushed.at.Before(committed); {
				flushed = d.waitFlush("change")
			}
			sum[name+"-stream-rows/s"] += float64(n/10) / time.Since(begun).Seconds()
			sum[name+"-peak-MB"] += float64(d.memoryKB("VmHWM")) / 1000
			d.stop()
		}
	}
	for name, value := range sum {
		b.ReportMetric(value/float64(b.N), name)
	}
}
