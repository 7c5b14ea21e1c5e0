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

// BenchmarkLatency is the time from a commit's answer to its change in a durable file: 2,000 commits, 100 a second, in a
// table of 1,000 rows; against the delay and writing a file of that size plainly.
func BenchmarkLatency(b *testing.B) {
	const (
		votes   = 1000
		commits = 2000
		pause   = 10 * time.Millisecond
		delay   = 100 * time.Millisecond
	)
	url := database(b, votes)
	conn := connect(b, url)
	var latencies, writes, plain []float64
	for b.Loop() {
		sql(b, conn, "UPDATE votes SET comment = '-1' WHERE vote_id = 1")
		d := start(b, url, "--flush-delay="+delay.String())
		f := d.flushed("start")
		for range 100 {
			plain = append(plain, millis(plainWrite(b, filepath.Join(dir, "plain.json"), f.Bytes)))
		}
		committed := make(chan time.Time, commits) // in their order
		failed := make(chan error, 1)
		go func() {
			defer close(committed)
			tick := time.NewTicker(pause)
			defer tick.Stop()
			for i := range commits {
				<-tick.C
				// The file's first row says which commit is the last that it holds; another row changes, too.
				if _, err := conn.Exec(b.Context(), "UPDATE votes SET comment = $1 WHERE vote_id IN (1, $2)", strconv.Itoa(i), 2+rand.IntN(votes-1)); err != nil {
					failed <- err
					return
				}
				committed <- time.Now()
			}
		}()
		for seen := -1; seen < commits-1; {
			f := d.flushed("change")
			writes = append(writes, f.Millis)
			for last := marker(b, d.path); seen < last; seen++ {
				latencies = append(latencies, millis(f.at.Sub(<-committed)))
			}
		}
		select {
		case err := <-failed:
			b.Fatal(err)
		default:
		}
		d.stop()
	}
	for name, q := range map[string]float64{"p50-ms": 0.5, "p99-ms": 0.99} {
		b.ReportMetric(quantile(latencies, q), name)
		b.ReportMetric(quantile(writes, q), "write-"+name)
		b.ReportMetric(quantile(plain, q)+millis(delay), "floor-"+name)
	}
}

var comment = regexp.MustCompile(`"comment":"(-?\d+)"`)

// marker is the number in the comment of the file's first row.
func marker(b *testing.B, path string) int {
	b.Helper()
	f, err := os.Open(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	lines := bufio.NewReader(f)
	_, _ = lines.ReadString('\n') // the array's bracket
	line, err := lines.ReadString('\n')
	found := comment.FindStringSubmatch(line)
	if err != nil || found == nil {
		b.Fatalf("the file's first row has no number for a comment (%v)", err)
	}
	n, err := strconv.Atoi(found[1])
	if err != nil {
		b.Fatal(err)
	}
	return n
}
