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

// BenchmarkMemory is what the process takes of the machine's memory, as a share of the file: after the first copy; at most
// while a thousand rows a second are changed, at random places; and at most and at the end while as many are as can be.
// CAPTURE_BENCH_UPDATES says for how long each: 10s unless told.
func BenchmarkMemory(b *testing.B) {
	span, err := time.ParseDuration(cmp.Or(os.Getenv("CAPTURE_BENCH_UPDATES"), "10s"))
	if err != nil {
		b.Fatalf("CAPTURE_BENCH_UPDATES: %v", err)
	}
	n := rows(b)
	url := database(b, n)
	conn := connect(b, url)
	for b.Loop() {
		d := start(b, url)
		f := d.flushed("start")
		// The heap's garbage of the copy goes back to the system in the seconds that follow.
		time.Sleep(6 * time.Second)
		report := func(name string, kB int64) { b.ReportMetric(float64(kB)*1024/float64(f.Bytes), name+"/file") }
		report("copied", d.memory("VmRSS"))
		report("peak-of-copy", d.memory("VmHWM"))
		// change changes rows for as long as span, a hundred at a time with pauses, and says how many and the most memory then.
		change := func(pause time.Duration) (changed int, most int64) {
			for begun := time.Now(); time.Since(begun) < span; changed += 100 {
				time.Sleep(time.Until(begun.Add(time.Duration(changed/100) * pause)))
				sql(b, conn, `UPDATE votes SET comment = 'changed ' || $1, bot_response = reverse(bot_response)
					WHERE vote_id IN (SELECT 1 + floor(random() * $2)::int FROM generate_series(1, 100))`, fmt.Sprint(rand.Int64()), n)
				most = max(most, d.memory("VmRSS"))
			}
			return changed, most
		}
		_, most := change(100 * time.Millisecond)
		report("paced", most)
		changed, most := change(0)
		d.command("snapshot")
		report("updates", most)
		report("updated", d.memory("VmRSS"))
		b.ReportMetric(float64(changed)/span.Seconds(), "updates/s")
		d.stop()
	}
}

// memory is one of the figures in /proc/PID/status, in kB.
func (d *daemon) memory(name string) int64 {
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
