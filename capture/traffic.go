package capture

import (
	"context"
	"errors"
	"net"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// traffic is when the last byte came from the server, over any of the connections that it watches.
type traffic struct{ last atomic.Int64 }

// epoch is what traffic counts from, so that a clock that is set does not look like silence.
var epoch = time.Now()

func (t *traffic) time() time.Time { return epoch.Add(time.Duration(t.last.Load())) }

func (t *traffic) heard() { t.last.Store(int64(time.Since(epoch))) }

// watch is cfg with connections that note each read.
func (t *traffic) watch(cfg *pgx.ConnConfig) *pgx.ConnConfig {
	cfg = cfg.Copy()
	dial := cfg.DialFunc
	cfg.DialFunc = func(ctx context.Context, network, addr string) (net.Conn, error) {
		conn, err := dial(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return trafficConn{conn, t}, nil
	}
	return cfg
}

// bound runs f, a talk with the server, for as long as the server goes on talking: a slow line may take its time, a dead
// one must not.
func (t *traffic) bound(ctx context.Context, silence time.Duration, f func(context.Context) error) error {
	talk, end := context.WithCancelCause(ctx)
	defer end(nil)
	t.heard()
	go func() {
		timer := time.NewTimer(silence)
		defer timer.Stop()
		for {
			select {
			case <-talk.Done():
				return
			case <-timer.C:
			}
			quiet := time.Since(t.time())
			if quiet >= silence {
				end(silentError(quiet))
				return
			}
			timer.Reset(silence - quiet)
		}
	}()
	err := f(talk)
	if err != nil && talk.Err() != nil && ctx.Err() == nil {
		return context.Cause(talk)
	}
	return err
}

// trafficConn notes each read.
type trafficConn struct {
	net.Conn
	t *traffic
}

// SyscallConn implements syscall.Conn.
func (c trafficConn) SyscallConn() (syscall.RawConn, error) {
	if s, ok := c.Conn.(syscall.Conn); ok {
		return s.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

func (c trafficConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.t.heard()
	}
	return n, err
}
