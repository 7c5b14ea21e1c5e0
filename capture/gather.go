package capture

import (
	"context"
	"net"
	"time"

	"github.com/jackc/pgx/v5"
)

// A walsender sends each message by itself, and a reader that waits is woken for each: at some ten thousand a second the
// waking costs more than the messages. gatherConn lets a moment pass while they come thick, so that one read takes many.
const (
	gatherBuffer = 256 << 10
	gatherNap    = 500 * time.Microsecond
	thick        = 32                   // reads within thickTime begin the naps
	thickTime    = 2 * time.Millisecond // that is, 16,000 a second
	thin         = 4 << 10              // bytes of a read after a nap that end them
)

type gatherConn struct {
	net.Conn
	buf   []byte
	r, w  int
	reads int // since from
	from  time.Time
	naps  bool
	never bool // naps
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
		return &gatherConn{Conn: conn, buf: make([]byte, gatherBuffer), never: never}, nil
	}
	return cfg
}

func (c *gatherConn) Read(p []byte) (int, error) {
	if c.r == c.w {
		if c.naps {
			time.Sleep(gatherNap)
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

// judge begins and ends the naps.
func (c *gatherConn) judge(n int) {
	if c.never {
		return
	}
	if c.naps {
		c.naps = n >= thin
		c.reads = 0
		return
	}
	now := time.Now()
	if c.reads == 0 || now.Sub(c.from) > thickTime {
		c.from, c.reads = now, 0
	}
	if c.reads++; c.reads >= thick {
		c.naps = true
	}
}
