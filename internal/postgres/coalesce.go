package postgres

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// The server sends each replication message by itself, and each wakes a reader that waits. At some thousand messages a
// second, waking costs more than the messages do, for us and for the walsender. So coalescingConn delays its reads while
// messages arrive at a high rate, and each read then returns many of them. (Measured by BenchmarkStream: a third of the CPU
// time of the follower, and less of the server's.)
//
// The delay follows the rate: it is as long as the messages take to fill a good part of the buffer. A shorter one wakes too
// often; a longer one makes the walsender wait for room.
const (
	firstDelay    = time.Millisecond
	shortestDelay = 100 * time.Microsecond
	longestDelay  = 5 * time.Millisecond

	busyReads  = 16                   // reads within busyPeriod that turn the delay on: 2,000 a second
	busyPeriod = 8 * time.Millisecond // see busyReads

	idleBytes   = 2 << 10   // a delay that gathers less turns the delay off
	growBelow   = 48 << 10  // a delay that gathers less grows
	shrinkAbove = 128 << 10 // a delay that gathers more shrinks

	// lowWater is the receive low-water mark while the delay is on: half of a receive buffer. A larger value makes Linux
	// enlarge the buffer.
	lowWater = 60 << 10
)

// coalescingConn is a connection whose reads are delayed while data arrives at a high rate.
type coalescingConn struct {
	net.Conn
	raw syscall.RawConn // nil if the connection has no file descriptor; delays then save less

	// mu serializes reads. pgx closes a broken connection by reading from it until its end, on another goroutine than the
	// read that may still be under way.
	mu         sync.Mutex
	buf        []byte
	start, end int // unread part of buf
	reads      int // number of reads since busySince
	busySince  time.Time
	delay      time.Duration // 0 while reads are not delayed
}

// WithCoalescedReads returns a copy of cfg for connections that receive a stream of small messages.
func WithCoalescedReads(cfg *pgx.ConnConfig) *pgx.ConnConfig {
	cfg = cfg.Copy()
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := &coalescingConn{Conn: conn, buf: make([]byte, readBufferBytes)}
		if s, ok := conn.(syscall.Conn); ok {
			c.raw, _ = s.SyscallConn()
		}
		return c, nil
	}
	return cfg
}

func (c *coalescingConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.start == c.end {
		if c.delay > 0 {
			time.Sleep(c.delay)
			c.stopIfIdle()
		}
		n, err := c.Conn.Read(c.buf)
		c.start, c.end = 0, max(n, 0)
		c.adjustDelay(n)
		if n <= 0 {
			return n, err
		}
	}
	n := copy(p, c.buf[c.start:c.end])
	c.start += n
	return n, nil
}

// adjustDelay turns the delay on or off, or changes it, after a read of n bytes.
func (c *coalescingConn) adjustDelay(n int) {
	if c.delay > 0 {
		switch {
		case n < idleBytes:
			c.stopDelay()
		case n < growBelow:
			c.delay = min(c.delay+c.delay/4, longestDelay)
		case n > shrinkAbove:
			c.delay = max(c.delay-c.delay/4, shortestDelay)
		}
		return
	}
	now := time.Now()
	if c.reads == 0 || now.Sub(c.busySince) > busyPeriod {
		c.busySince, c.reads = now, 0
	}
	if c.reads++; c.reads >= busyReads {
		c.delay = firstDelay
		c.setLowWater(lowWater)
	}
}

// stopIfIdle turns the delay off if little has arrived. The read that follows may have to wait for more, and with the
// low-water mark it would wait for too much.
func (c *coalescingConn) stopIfIdle() {
	if c.raw != nil && bytesWaiting(c.raw) < idleBytes {
		c.stopDelay()
	}
}

func (c *coalescingConn) stopDelay() {
	c.delay, c.reads = 0, 0
	c.setLowWater(1)
}

// setLowWater sets how many bytes must wait before the system calls the connection readable. Without that, Go's network
// poller wakes for each message, even if no goroutine waits for it.
func (c *coalescingConn) setLowWater(bytes int) {
	if c.raw != nil {
		setReceiveLowWater(c.raw, bytes)
	}
}
