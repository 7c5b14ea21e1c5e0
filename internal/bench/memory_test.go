package main

import (
	"bytes"
	"cmp"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"
)

// BenchmarkMemory measures the resident memory of the process, divided by the size of the file: after the first copy; at its
// peak while 1,000 random rows per second change; and at its peak and afterwards while as many rows change as the server
// can update. CAPTURE_BENCH_UPDATES is the duration of each, by default 10s.
func BenchmarkMemory(b *testing.B) {
	span, err := time.ParseDuration(cmp.Or(os.Getenv("CAPTURE_BENCH_UPDATES"), "10s"))
	if err != nil {
		b.Fatalf("CAPTURE_BENCH_UPDATES: %v", err)
	}
	n := tableRows(b)
	url := votesDatabase(b, n)
	conn := connect(b, url)
	for b.Loop() {
		d := startDaemon(b, url)
		f := d.waitFlush("start")
		// The process returns the garbage of the copy to the system within seconds.
		time.Sleep(6 * time.Second)
		report := func(name string, kB int64) { b.ReportMetric(float64(kB)*1024/float64(f.Bytes), name+"/file") }
		report("copied", d.memoryKB("VmRSS"))
		report("peak-of-copy", d.memoryKB("VmHWM"))
		// updateRows updates rows for span, 100 per statement and pause. It returns their number and the peak memory.
		updateRows := func(pause time.Duration) (changed int, peak int64) {
			for begun := time.Now(); time.Since(begun) < span; changed += 100 {
				time.Sleep(time.Until(begun.Add(time.Duration(changed/100) * pause)))
				execSQL(b, conn, `UPDATE votes SET comment = 'changed ' || $1, bot_response = reverse(bot_response)
					WHERE vote_id IN (SELECT 1 + floor(random() * $2)::int FROM generate_series(1, 100))`, fmt.Sprint(rand.Int64()), n)
				peak = max(peak, d.memoryKB("VmRSS"))
			}
			return changed, peak
		}
		_, peak := updateRows(100 * time.Millisecond)
		report("paced", peak)
		changed, peak := updateRows(0)
		d.runCommand("snapshot")
		report("updates", peak)
		report("updated", d.memoryKB("VmRSS"))
		b.ReportMetric(float64(changed)/span.Seconds(), "updates/s")
		d.stop()
	}
}

// resetPeak makes VmHWM begin again at the present memory (see proc(5), clear_refs).
func (d *daemon) resetPeak() {
	d.b.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", d.cmd.Process.Pid), []byte("5"), 0); err != nil {
		d.b.Fatal(err)
	}
}

// memoryKB returns a figure of /proc/PID/status, in kB.
func (d *daemon) memoryKB(name string) int64 {
	d.b.Helper()
	content, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", d.cmd.Process.Pid))
	if err != nil {
		d.b.Fatal(err)
	}
	for line := range bytes.Lines(content) {
		if fields := bytes.Fields(line); len(fields) > 1 && string(fields[0]) == name+":" {
			kB, err := strconv.ParseInt(string(fields[1]), 10, 64)
			if err != nil {
				d.b.Fatal(err)
			}
			return kB
		}
	}
	d.b.Fatalf("/proc has no %s", name)
	return 0
}
