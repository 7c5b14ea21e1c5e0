package main

import (
	"bufio"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"
)

// BenchmarkLatency measures the time from the end of a commit until the durable file contains its change. It makes 2,000
// commits, 100 per second, in a table of 1,000 rows. The baseline is the flush delay plus the time of a plain write of a file
// of the same size.
func BenchmarkLatency(b *testing.B) {
	const (
		votes   = 1000
		commits = 2000
		pause   = 10 * time.Millisecond
		delay   = 100 * time.Millisecond
	)
	url := votesDatabase(b, votes)
	conn := connect(b, url)
	var latencies, writes, plain []float64
	for b.Loop() {
		execSQL(b, conn, "UPDATE votes SET comment = '-1' WHERE vote_id = 1")
		d := startDaemon(b, url, "--flush-delay="+delay.String())
		f := d.waitFlush("start")
		for range 100 {
			plain = append(plain, milliseconds(plainWrite(b, filepath.Join(dir, "plain.json"), f.Bytes)))
		}
		committed := make(chan time.Time, commits) // in commit order
		go func() {
			defer close(committed)
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for i := range commits {
				<-tick.C
				// The comment of the first row is the number of the commit, so the file shows which commit is the last one
				// in it. Each commit changes another row, too.
				if _, err := conn.Exec(b.Context(), "UPDATE votes SET comment = $1 WHERE vote_id IN (1, $2)", strconv.Itoa(i), 2+rand.IntN(votes-1)); err != nil {
					b.Errorf("update: %v", err)
					_ = d.cmd.Process.Kill() // so that waitFlush does not wait for this commit
					return
				}
				committed <- time.Now()
			}
		}()
		for seen := -1; seen < commits-1; {
			f := d.waitFlush("change")
			writes = append(writes, f.Millis)
			for last := lastCommit(b, d.path); seen < last; seen++ {
				latencies = append(latencies, milliseconds(f.at.Sub(<-committed)))
			}
		}
		d.stop()
	}
	for name, q := range map[string]float64{"p50-ms": 0.5, "p99-ms": 0.99} {
		b.ReportMetric(quantile(latencies, q), name)
		b.ReportMetric(quantile(writes, q), "write-"+name)
		b.ReportMetric(quantile(plain, q)+milliseconds(delay), "floor-"+name)
	}
}

var comment = regexp.MustCompile(`"comment":"(-?\d+)"`)

// lastCommit returns the number of the last commit that the file contains. This number is the comment of the first row.
func lastCommit(b *testing.B, path string) int {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewReader(f)
	_, _ = lines.ReadString('\n') // skips the opening bracket
	line, err := lines.ReadString('\n')
	found := comment.FindStringSubmatch(line)
	if err != nil || found == nil {
		b.Fatalf("find a number in the comment of the file's first row: %v", err)
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		b.Fatal(err)
	}
	return n
}
