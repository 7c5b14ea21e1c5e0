package postgres

import (
	"bytes"
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
)

// TestCoalescedReadsFromTwoGoroutines checks that two goroutines can read at the same time, and that each byte is read
// exactly once. When pgx closes a broken connection, it reads the remaining data, possibly while another read is still
// running.
func TestCoalescedReadsFromTwoGoroutines(t *testing.T) {
	t.Parallel()
	cfg, err := ParseConfig("postgres://localhost/")
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	cfg.DialFunc = func(context.Context, string, string) (net.Conn, error) { return ours, nil }
	conn, err := WithCoalescedReads(cfg).DialFunc(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	const size, pieces = 1000, 500
	var got atomic.Int64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			p := make([]byte, 300)
			for {
				n, err := conn.Read(p)
				if err != nil {
					return
				}
				for _, b := range p[:n] {
					got.Add(int64(b))
				}
			}
		})
	}
	piece := bytes.Repeat([]byte{3}, size)
	for range pieces {
		if _, err := theirs.Write(piece); err != nil {
			t.Fatal(err)
		}
	}
	theirs.Close()
	wg.Wait()
	if want := int64(3 * size * pieces); got.Load() != want {
		t.Errorf("the sum of the bytes is %d, want %d", got.Load(), want)
	}
}
