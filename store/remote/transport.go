package remote

import (
	"context"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// stallTimeout is the time without any progress after which a connection to a service counts as dead.
const stallTimeout = time.Minute

// transport sends the requests. A connection on which nothing moves for stallTimeout fails. transport remembers when bytes last
// moved. It also remembers the difference between the service's clock and this machine's, because services refuse requests whose
// time is wrong.
type transport struct {
	http  *http.Transport
	ahead atomic.Int64 // lead of the service's clock in nanoseconds, at the last response
	start time.Time    // point in time from which t.moved is counted
	moved atomic.Int64 // time at which bytes were last sent or received, in nanoseconds since start
}

func newTransport() *transport {
	dialer := &net.Dialer{Timeout: 15 * time.Second, KeepAlive: 15 * time.Second}
	t := &transport{http: http.DefaultTransport.(*http.Transport).Clone(), start: time.Now()}
	t.http.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &progressConn{conn, t}, nil
	}
	t.http.MaxIdleConns, t.http.IdleConnTimeout = 4, 30*time.Second
	t.http.DisableCompression = true // the data are gzip already, and must arrive as they are
	t.http.ForceAttemptHTTP2 = false // one request at a time needs no HTTP/2
	return t
}

// silence returns for how long no bytes have been sent or received, but at most time.Since(begun).
func (t *transport) silence(begun time.Time) time.Duration {
	moved := t.start.Add(time.Duration(t.moved.Load()))
	return min(time.Since(begun), time.Since(moved))
}

func (t *transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.http.RoundTrip(req)
	if err == nil {
		if at, err := http.ParseTime(resp.Header.Get("Date")); err == nil {
			t.ahead.Store(int64(time.Until(at)))
		}
	}
	return resp, err
}

// serviceNow returns the time by the service's clock.
func (t *transport) serviceNow() time.Time { return time.Now().Add(time.Duration(t.ahead.Load())) }

// clockError returns the lead of the service's clock, or 0 if it is too small to matter.
func (t *transport) clockError() time.Duration {
	if ahead := time.Duration(t.ahead.Load()).Round(time.Second); ahead.Abs() > time.Minute {
		return ahead
	}
	return 0
}

// progressConn is a connection that fails if neither a read nor a write has made progress for stallTimeout.
type progressConn struct {
	net.Conn
	transport *transport
}

func (c *progressConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.recordProgress()
	}
	return n, err
}

func (c *progressConn) Write(p []byte) (int, error) {
	c.extend()
	n, err := c.Conn.Write(p)
	if n > 0 {
		c.recordProgress()
	}
	return n, err
}

func (c *progressConn) recordProgress() {
	c.transport.moved.Store(int64(time.Since(c.transport.start)))
	c.extend()
}

// extend moves the deadline of reads and of writes, because progress in one direction is enough.
func (c *progressConn) extend() { _ = c.Conn.SetDeadline(time.Now().Add(stallTimeout)) }
