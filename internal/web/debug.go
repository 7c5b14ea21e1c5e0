package web

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"sync"
)

// RunDebug answers Go's profiles under /debug/pprof/ on l until ctx ends, and closes l in any case. Only callers on this
// machine get an answer, and no browser on behalf of another site. There is no cmdline among them, since the command line
// may hold a password.
func RunDebug(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index) // and the profiles by their names
	mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	var conns sync.WaitGroup
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Content-Type-Options", "nosniff")
			switch no := refuseForeign(r); {
			case no != nil:
				fail(w, no.code, no.text)
			case !loopback(remoteHost(r)) || !localName(r.Host):
				fail(w, http.StatusForbidden, "profiles are for callers on capture's own machine, by a name of its loopback")
			default:
				mux.ServeHTTP(w, r)
			}
		}),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // a stop does not wait for a profile's seconds
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
			case http.StateClosed, http.StateHijacked:
				conns.Done()
			}
		},
	}
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
		served <- err
		err = fmt.Errorf("serve profiles on %s: %w", l.Addr(), err)
	}
	srv.Close()
	<-served
	conns.Wait()
	return err
}
