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

// BenchmarkMemory measures the resident memory of the process, divided by the size of the file. It measures the memory after
// the first copy and the peak of this copy. It then changes 1,000 random rows per second, and measures the peak. Finally, it
// changes as many rows as the server can update, and measures the peak and the memory afterwards. Each of the two phases with
// changes takes CAPTURE_BENCH_UPDATES, by default 10s.
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
		// The process needs this time to return the memory of the copy's garbage to the system.
		time.Sleep(6 * time.Second)
		report := func(name string, kB int64) { b.ReportMetric(float64(kB)*1024/float64(f.Bytes), name+"/file") }
		report("copied", d.memoryKB("VmRSS"))
		report("peak-of-copy", d.memoryKB("VmHWM"))
		// updateRows runs UPDATE statements of 100 rows each until the duration span has passed. A statement begins every
		// pause, or right after the previous one if pause is 0. updateRows returns the number of updated rows and the peak
		// memory in kB.
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

// resetPeak sets the peak memory (VmHWM) to the current memory; see clear_refs in proc(5).
func (d *daemon) resetPeak() {
	d.b.Helper()
	if err := os.WriteFile(fmt.Sprintf("/proc/%d/clear_refs", d.cmd.Process.Pid), []byte("5"), 0); err != nil {
		d.b.Fatal(err)
	}
}

// memoryKB returns the figure with this name in /proc/PID/status, in kB.
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
