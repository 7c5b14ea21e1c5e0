package web

import (
	"context"
	"net"
	"net/http"
	"net/http/pprof"
)

// RunDebug serves Go's profiles under /debug/pprof/ on l until ctx ends, and closes l in any case. It answers the same callers
// as a server without a token file (see localCallers), and refuses requests that a browser makes on behalf of another site. It
// does not serve /debug/pprof/cmdline, since the command line may contain a password.
func RunDebug(ctx context.Context, l net.Listener) error {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /debug/pprof/", pprof.Index) // also serves the named profiles
	mux.HandleFunc("GET /debug/pprof/cmdline", http.NotFound)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	local, _ := newLocalCallers() // if the system does not report the users of sockets, the other rules still apply
	srv := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Content-Type-Options", "nosniff")
			no := refuseForeign(r, true)
			if no == nil {
				no = local.check(r)
			}
			if no != nil {
				writeError(w, no.code, no.text)
				return
			}
			mux.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		BaseContext:       func(net.Listener) context.Context { return ctx }, // the end of ctx also ends a profile in progress
	}
	return serveUntilDone(ctx, srv, l, maxConnections, func() { srv.Close() })
}
