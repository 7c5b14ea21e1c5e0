package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/semaphore"
)

// apiPolicy is the content security policy of every answer except the page. With this policy, a browser does not run, show
// or frame anything in the answer.
const apiPolicy = "default-src 'none'; frame-ancestors 'none'"

// middleware processes every request before its handler. wrap is the outer part, around the whole ServeMux. guard is the inner
// part, around one route.
type middleware struct {
	access   access
	requests *semaphore.Weighted
	metrics  *metrics
	log      hclog.Logger

	refusals logLimiter
	failures logLimiter
}

func newMiddleware(cfg *Config, tickets *tickets) *middleware {
	return &middleware{
		access:   newAccess(cfg.TokenFile, tickets, cfg.Logger),
		requests: semaphore.NewWeighted(maxRequests),
		metrics:  newMetrics(cfg.Registry, cfg.Version),
		log:      cfg.Logger,
	}
}

// wrap sets the security headers, counts and logs the request, discards its body, and handles a panic. It answers 404 if the
// path is not clean.
func (m *middleware) wrap(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Content-Security-Policy", apiPolicy)
		rw := recorded(w)
		rw.route = otherRoute // until guard sets the matching route
		defer m.record(rw, r)
		defer m.recoverPanic(rw)
		if !isCleanPath(r) {
			serveNotFound(rw, r)
			return
		}
		if !discardBody(rw, r) {
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// record counts and logs a request that has been answered.
func (m *middleware) record(w *responseWriter, r *http.Request) {
	code := w.code
	if code == 0 {
		code = http.StatusOK // net/http sends this code if the handler wrote nothing
	}
	m.metrics.requests.WithLabelValues(w.route, strconv.Itoa(code)).Inc()
	if !w.stream {
		m.metrics.seconds.WithLabelValues(w.route).Observe(time.Since(w.received).Seconds())
	}
	m.log.Debug("request", "method", r.Method, "route", w.route, "code", code, "bytes", w.bytes,
		"remote", remoteHost(r), "milliseconds", w.elapsedMilliseconds())
}

// discardBody reads the request's body, which no handler needs, and then removes the read deadline. If the deadline passed
// during the answer, net/http would assume that the client has gone, and cancel the request. If the body cannot be read,
// discardBody answers the request and returns false.
func discardBody(w *responseWriter, r *http.Request) bool {
	var err error
	if r.ContentLength > maxBodyBytes {
		err = &http.MaxBytesError{Limit: maxBodyBytes} // refused without reading the body
	} else {
		_, err = io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBodyBytes))
	}
	if err != nil {
		w.Header().Set("Connection", "close")
		var tooLarge *http.MaxBytesError
		switch {
		case errors.As(err, &tooLarge):
			writeError(w, http.StatusRequestEntityTooLarge, "the request has a body; send it without one")
		case errors.Is(err, os.ErrDeadlineExceeded):
			writeError(w, http.StatusRequestTimeout, "the request's body did not arrive in time; send the request without one")
		default:
			writeError(w, http.StatusBadRequest, "the request's body can't be read; send the request without one")
		}
		return false
	}
	_ = w.conn.SetReadDeadline(time.Time{})
	return true
}

// recoverPanic logs a panic and answers 500 if nothing has been sent yet. It aborts an answer that has begun, because a regular
// end would make the answer look complete.
func (m *middleware) recoverPanic(w *responseWriter) {
	v := recover()
	if v == nil {
		return
	}
	if v != http.ErrAbortHandler {
		// For an error of the Go runtime, the log gets the message, which contains no text of a vote. The message of any
		// other panic may contain such a text, so the log gets only the type.
		what := fmt.Sprintf("%T", v)
		if e, ok := v.(runtime.Error); ok {
			what = e.Error()
		}
		if skipped, ok := m.failures.allow(); ok {
			m.log.Error("request panicked", "panic", what, "stack", string(debug.Stack()), "more_left_out", skipped)
		}
		if w.code == 0 {
			writeError(w, http.StatusInternalServerError, "internal error in capture; see its error log")
			return
		}
	}
	panic(http.ErrAbortHandler)
}

// guard applies the access rule and the limit on concurrent requests to one route.
func (m *middleware) guard(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rw := recorded(w)
		rw.route, rw.stream = rt.name(), rt.stream
		if rt.public {
			rt.serve(rw, r)
			return
		}
		no := m.access.check(r, rt.page)
		needsToken := no != nil && no.code == http.StatusUnauthorized && rt.page
		if no != nil && (!needsToken || no.delay > 0) {
			m.logRefusal(rt, r, no)
			if !waitFor(r.Context(), no.delay) {
				return // the client has gone
			}
		}
		switch {
		case needsToken:
			r = markTokenMissing(r)
		case no != nil:
			if no.code == http.StatusUnauthorized {
				requestToken(rw)
			}
			writeError(rw, no.code, no.text)
			return
		}
		if !rt.stream && !rt.page {
			if !m.requests.TryAcquire(1) {
				writeUnavailable(rw, 1, fmt.Sprintf("%d requests are in progress already; try again in a moment", maxRequests))
				return
			}
			defer m.requests.Release(1)
		}
		if !rt.page {
			defer holdConn(r.Context())()
		}
		rt.serve(rw, r)
	})
}

// waitFor waits for the duration d. It returns false if ctx ends first.
func waitFor(ctx context.Context, d time.Duration) bool {
	if d == 0 {
		return true
	}
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}

func (m *middleware) logRefusal(rt route, r *http.Request, no *refusal) {
	if no.err != nil {
		if skipped, ok := m.failures.allow(); ok {
			m.log.Error("caller can't be checked, so the request is refused", "error", no.err, "more_left_out", skipped)
		}
	}
	if skipped, ok := m.refusals.allow(); ok {
		m.log.Warn("request refused", "method", r.Method, "route", rt.name(), "code", no.code, "reason", no.text,
			"remote", remoteHost(r), "more_left_out", skipped)
	}
}
