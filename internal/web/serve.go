package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
)

// serveUntilDone runs srv on l until ctx ends or srv fails. Then it calls stop, which must end srv, and waits until all
// connections are closed. It closes further connections than limit at once. It returns nil if ctx has ended, and closes
// l in any case.
func serveUntilDone(ctx context.Context, srv *http.Server, l net.Listener, limit int64, stop func()) error {
	var conns sync.WaitGroup
	var open atomic.Int64
	srv.ConnState = func(c net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			conns.Add(1)
			if open.Add(1) > limit {
				c.Close()
			}
		case http.StateClosed, http.StateHijacked:
			open.Add(-1)
			conns.Done()
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
	conns.Wait()
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve http on %s: %w", l.Addr(), err)
}
