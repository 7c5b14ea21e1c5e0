package capture

import (
	"context"
	"net"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// A walsender sends each message by itself, and a reader that waits is woken for each: at some thousands a second the
// waking costs more than the messages, here and at the walsender. gatherConn lets a moment pass while they come thick, so
// that one read takes many. The moment is as long as it takes them to fill a good part of the buffer: one that is too short
// wakes too often, and one that is too long has the walsender wait for room.
const (
	gatherBuffer = 256 << 10
	firstNap     = time.Millisecond
	shortestNap  = 100 * time.Microsecond
	longestNap   = 5 * time.Millisecond
	thick        = 16                   // reads within thickTime begin the naps
	thickTime    = 8 * time.Millisecond // that is, 2,000 a second
	thin         = 2 << 10              // bytes after a nap that end them
	little       = 48 << 10             // that have the next nap last longer
	much         = 128 << 10            // that have it last less long
	quiet        = 60 << 10             // bytes that wake nobody: half of a receive buffer, which Linux enlarges for more
)

type gatherConn struct {
	net.Conn
	raw syscall.RawConn // nil where there is none

	mu    sync.Mutex // pgx closes a broken connection by reading it to its end beside a read that it began before
	buf   []byte
	r, w  int
	reads int // since from
	from  time.Time
	nap   time.Duration // 0 while none are taken
	never bool          // are naps taken
}

// gather has the connections of cfg read by gatherConn, for a stream.
func gather(cfg *pgx.ConnConfig) *pgx.ConnConfig { return gathered(cfg, false) }

// inBulk has them read by it without naps, for a copy: one read takes many rows.
func inBulk(cfg *pgx.ConnConfig) *pgx.ConnConfig { return gathered(cfg, true) }

func gathered(cfg *pgx.ConnConfig, never bool) *pgx.ConnConfig {
	cfg = cfg.Copy()
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		c := &gatherConn{Conn: conn, buf: make([]byte, gatherBuffer), never: never}
		if s, ok := conn.(syscall.Conn); ok {
			c.raw, _ = s.SyscallConn() // without it the naps save less
		}
		return c, nil
	}
	return cfg
}

func (c *gatherConn) Read(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.r == c.w {
		if c.nap > 0 {
			time.Sleep(c.nap)
			c.look()
		}
		n, err := c.Conn.Read(c.buf)
		c.r, c.w = 0, max(n, 0)
		c.judge(n)
		if n <= 0 {
			return n, err
		}
	}
	n := copy(p, c.buf[c.r:c.w])
	c.r += n
	return n, nil
}

// judge begins and ends the naps, and says how long they are.
func (c *gatherConn) judge(n int) {
	switch {
	case c.never:
		return
	case c.nap > 0:
		switch {
		case n < thin:
			c.wake()
		case n < little:
			c.nap = min(c.nap+c.nap/4, longestNap)
		case n > much:
			c.nap = max(c.nap-c.nap/4, shortestNap)
		}
		return
	}
	now := time.Now()
	if c.reads == 0 || now.Sub(c.from) > thickTime {
		c.from, c.reads = now, 0
	}
	if c.reads++; c.reads >= thick {
		c.nap = firstNap
		c.arouse(quiet)
	}
}

// look ends the naps where too little has come for them: a read may have to wait for more then.
func (c *gatherConn) look() {
	if c.raw != nil && waiting(c.raw) < thin {
		c.wake()
	}
}

// wake ends the naps.
func (c *gatherConn) wake() {
	c.nap, c.reads = 0, 0
	c.arouse(1)
}

// arouse has the system wake nobody before so many bytes have come: the runtime's poller else wakes for each message, even
// if nobody waits for it.
func (c *gatherConn) arouse(bytes int) {
	if c.raw != nil {
		wakeFrom(c.raw, bytes)
	}
}
