package web

import (
	"context"
	"encoding/json"
	"strings"
	"sync"
	"testing"
	"time"

	"capture/capture"
	"capture/internal/foldlog"
)

// TestRequestsCannotFloodTheLog checks that many requests cause only few log lines, and that the numbers in these lines
// still count every answered request.
func TestRequestsCannotFloodTheLog(t *testing.T) {
	t.Parallel()
	h := newTableHarness(t, fiveVotes(t), func(c *Config) {
		c.Flush = func(context.Context) (capture.SnapshotResult, error) { return capture.SnapshotResult{Bytes: 1}, nil }
	})
	h.replace(t, "feedback.json", "[]\n")
	start := time.Now()
	const each = 2_500
	var work sync.WaitGroup
	for _, c := range [][]string{{"GET", "/feedback.json"}, {"POST", "/snapshot"}, {"GET", "/api/votes.json"}, {"GET", "/feedback.json", "X-Forwarded-For", "192.0.2.1"}} {
		work.Go(func() {
			for range each {
				h.do(c[0], c[1], c[2:]...)
			}
		})
	}
	work.Wait()
	h.file.downloads.Flush()
	h.flush.flushes.Flush()
	h.export.done.Flush()
	seconds := int(time.Since(start)/time.Second) + 2
	lines := strings.Count(h.log.String(), "\n")
	if limit := 3*(foldlog.Burst+seconds) + logBurst + seconds; lines > limit {
		t.Errorf("%d requests caused %d lines in %d seconds, more than %d", 4*each, lines, seconds, limit)
	}
	events := map[string]int{}
	for text := range strings.Lines(h.log.String()) {
		var line struct {
			Message string `json:"@message"`
			Events  int    `json:"events"`
		}
		if err := json.Unmarshal([]byte(text), &line); err != nil {
			t.Fatal(err)
		}
		events[line.Message] += max(line.Events, 1)
	}
	for _, message := range []string{"download", "forced flush", "export"} {
		if events[message] != each {
			t.Errorf("%s: %d of %d are in the log", message, events[message], each)
		}
	}
}

// TestBrokenOffDownloadIsLogged checks that a download is logged even if the caller aborts it, because the caller has read
// votes.
func TestBrokenOffDownloadIsLogged(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	h.replace(t, "feedback.json", strings.Repeat(version(1), 500))
	addr := h.serve(t)
	for _, encoding := range []string{"gzip", "identity"} {
		c := dial(t, addr)
		c.Write([]byte("GET /feedback.json HTTP/1.1\r\nHost: localhost\r\nAccept-Encoding: " + encoding + "\r\n\r\n"))
		c.Read(make([]byte, 100))
		c.Close()
	}
	for deadline := time.Now().Add(patience); strings.Count(h.log.String(), `"@message":"download"`) < 2; {
		if time.Now().After(deadline) {
			t.Fatalf("two downloads were broken off: %s", h.log)
		}
		time.Sleep(10 * time.Millisecond)
	}
}
