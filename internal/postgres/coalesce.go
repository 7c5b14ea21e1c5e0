package postgres

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// The server sends each replication message separately, and each message wakes a waiting reader. At several thousand
// messages a second, these wake-ups cost capture and the walsender more than the messages do. So coalescingConn delays its
// reads while messages arrive at a high rate, and each read then returns many messages. According to BenchmarkStream, the
// delay reduces capture's CPU time to about a third. It also reduces the server's CPU time.
//
// The delay adapts to the rate: it is the time in which the messages fill a good part of the buffer. A shorter delay wakes the
// reader too often. A longer delay lets the buffer fill up, so the walsender has to wait.
const (
	firstDelay    = time.Millisecond
	shortestDelay = 100 * time.Microsecond
	longestDelay  = 5 * time.Millisecond

	busyReads  = 16 // number of reads within busyPeriod that turns the delay on: 2,000 a second
	busyPeriod = 8 * time.Millisecond

	idleBytes   = 2 << 10   // a delayed read of fewer bytes turns the delay off
	growBelow   = 48 << 10  // a delayed read of fewer bytes lengthens the delay
	shrinkAbove = 128 << 10 // a delayed read of more bytes shortens the delay

	// lowWater is the receive low-water mark in bytes while the delay is on: nearly half of the default receive buffer. If
	// the mark were higher, Linux would enlarge the receive buffer.
	lowWater = 60 << 10
)

// coalescingConn is a connection whose reads are delayed while data arrives at a high rate.
type coalescingConn struct {
	net.Conn
	raw syscall.RawConn // nil if the connection has no file descriptor; delays then save less

	// mu serializes reads. When pgx closes a broken connection, it reads the remaining data in another goroutine, possibly
	// while an earlier read is still under way.
	mu         sync.Mutex
	buf        []byte
	start, end int           // bounds of the unread part of buf
	reads      int           // number of reads since busySince
	busySince  time.Time     // start of the current busyPeriod
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

// stopIfIdle turns the delay off if fewer than idleBytes have arrived. It must do so before the next read: with the
// low-water mark, a read that finds no data would block until lowWater bytes have arrived.
func (c *coalescingConn) stopIfIdle() {
	if c.raw != nil && bytesWaiting(c.raw) < idleBytes {
		c.stopDelay()
	}
}

func (c *coalescingConn) stopDelay() {
	c.delay, c.reads = 0, 0
	c.setLowWater(1)
}

// setLowWater sets how many bytes must have arrived before the system reports the connection as readable. With a mark of 1,
// the default, each message wakes Go's network poller, even if no goroutine waits for data.
func (c *coalescingConn) setLowWater(bytes int) {
	if c.raw != nil {
		setReceiveLowWater(c.raw, bytes)
	}
}
