package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"
)

// serveUntilDone runs srv on l until ctx ends or srv fails. Then it calls stop, which must end srv, and waits until all
// connections are closed. If there are more connections than the limit, it closes connections that wait for a request. It
// returns nil if ctx has ended, and closes l in any case.
func serveUntilDone(ctx context.Context, srv *http.Server, l net.Listener, limit int, stop func()) error {
	conns := connections{limit: limit, open: map[net.Conn]*connection{}}
	srv.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, conns.add(c))
	}
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateIdle: // net/http has written the whole answer, and has not yet looked at the next request
			conns.setIdle(c)
			if c, ok := c.(*plainErrorConn); ok {
				c.endAnswer()
			}
		case http.StateClosed, http.StateHijacked:
			conns.remove(c)
		}
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	var err error
	select {
	case <-ctx.Done():
		stop()
		err = <-served
	case err = <-served:
		stop()
	}
	conns.served.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
}

// connections are the open connections of a server. If their number exceeds limit, the server closes the connection that has
// waited longest for a request. Therefore, idle callers cannot keep out others, such as health checks. There is no
// limit per address, because behind a proxy all callers have the same address.
//
// A connection is held while an admitted request is answered on it. A held connection is never closed to make room. The number
// of admitted requests stays far below the limit (see maxRequests and maxStreams), so there is always another connection to
// close. A connection counts as waiting until its request is admitted, and again after the answer. Therefore, callers that send
// half a header or half a body, or that do not read a refusal, cannot fill all connections.
type connections struct {
	limit  int
	served sync.WaitGroup // counts the connections that the server has not finished with

	mu   sync.Mutex
	open map[net.Conn]*connection // open connections, except those that were closed to make room
}

// connection is one open connection.
type connection struct {
	conns *connections
	since time.Time // time at which the connection began to wait for a request
	held  bool      // whether an admitted request is in progress
}

// connKey is the context key of a request's *connection.
type connKey struct{}

// holdConn prevents the connection of a request from being closed to make room, until release is called.
func holdConn(ctx context.Context) (release func()) {
	c, ok := ctx.Value(connKey{}).(*connection)
	if !ok {
		return func() {} // the handler was called without a server
	}
	c.setHeld(true)
	return func() { c.setHeld(false) }
}

func (c *connection) setHeld(held bool) {
	c.conns.mu.Lock()
	defer c.conns.mu.Unlock()
	c.held = held
}

// add adds a connection. If there is no room, it closes the connection that has waited longest.
func (s *connections) add(nc net.Conn) *connection {
	c := &connection{conns: s, since: time.Now()}
	s.served.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.open) >= s.limit {
		var longest net.Conn
		for other, o := range s.open {
			if !o.held && (longest == nil || o.since.Before(s.open[longest].since)) {
				longest = other
			}
		}
		if longest == nil {
			longest = nc
		}
		delete(s.open, longest)
		longest.Close()
		if longest == nc {
			return c
		}
	}
	s.open[nc] = c
	return c
}

// setIdle records that a connection waits for its next request.
func (s *connections) setIdle(nc net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c, ok := s.open[nc]; ok {
		c.since = time.Now()
	}
}

// remove removes a connection that the server has finished with.
func (s *connections) remove(nc net.Conn) {
	s.mu.Lock()
	delete(s.open, nc)
	s.mu.Unlock()
	s.served.Done()
}
