package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/internal/guard"
)

// DefaultIdleTimeout is the time without data from the server after which its connection counts as dead. The reply to a
// keepalive arrives sooner, even over a slow link or from a busy server.
const DefaultIdleTimeout = 30 * time.Second

// ReadClock records when bytes last arrived from a server, on any of the connections that it is attached to.
type ReadClock struct{ last atomic.Int64 } // nanoseconds since clockStart

// clockStart is the zero time of every ReadClock. Times relative to it are monotonic, so a change of the system's clock does
// not look like silence.
var clockStart = time.Now()

// LastRead returns when bytes last arrived.
func (c *ReadClock) LastRead() time.Time { return clockStart.Add(time.Duration(c.last.Load())) }

// Touch records that bytes arrived now.
func (c *ReadClock) Touch() { c.last.Store(int64(time.Since(clockStart))) }

// Attach returns a copy of cfg whose connections record their reads in c.
func (c *ReadClock) Attach(cfg *pgx.ConnConfig) *pgx.ConnConfig {
	cfg = cfg.Copy()
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return clockedConn{conn, c}, nil
	}
	return cfg
}

// WithIdleTimeout calls f. If no data arrives for the given timeout, WithIdleTimeout cancels f's context and returns the
// error of [IdleError]. So an exchange with the server may take any time over a slow link, as long as bytes arrive. On a
// dead link, it ends soon.
func (c *ReadClock) WithIdleTimeout(ctx context.Context, timeout time.Duration, f func(context.Context) error) error {
	c.Touch()
	return guard.RunWatched(ctx, hclog.Default(), "watch a connection",
		func(ctx context.Context) error { return c.waitIdle(ctx, timeout) }, f)
}

// waitIdle waits until no data has arrived for the given timeout, and then returns an error. If ctx ends first, it returns
// nil.
func (c *ReadClock) waitIdle(ctx context.Context, timeout time.Duration) error {
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		idle := time.Since(c.LastRead())
		if idle >= timeout {
			return IdleError(idle)
		}
		timer.Reset(timeout - idle)
	}
}

// IdleError returns the error for a server that is silent. idle is the time since the server last sent something.
func IdleError(idle time.Duration) error {
	return fmt.Errorf("no data from the server for %s: the network or the server hangs", idle.Round(time.Second))
}

// clockedConn records each read in a ReadClock.
type clockedConn struct {
	net.Conn
	clock *ReadClock
}

func (c clockedConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.clock.Touch()
	}
	return n, err
}

// SyscallConn implements [syscall.Conn]. coalescingConn uses it to query how many bytes wait to be read, and to set the
// low-water mark.
func (c clockedConn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}
