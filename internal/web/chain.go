package web

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"runtime/debug"
	"strconv"
	"time"
)

// strict is the content policy of every answer but the page's: nothing in it may be run, shown or framed.
const strict = "default-src 'none'; frame-ancestors 'none'"

// outer is around every request, also those that no route takes.
func (s *Server) outer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Content-Security-Policy", strict)
		rw := newResponse(w)
		defer s.record(rw, r, time.Now())
		defer s.recover(rw)
		if !clean(r) {
			notFound(rw, r)
			return
		}
		if !s.readBody(rw, r) {
			return
		}
		next.ServeHTTP(rw, r)
	})
}

// record counts and logs a request that has been answered.
func (s *Server) record(w *response, r *http.Request, begun time.Time) {
	code := w.code
	if code == 0 {
		code = http.StatusOK // what net/http sends where nothing was said
	}
	s.metrics.requests.WithLabelValues(w.route, strconv.Itoa(code)).Inc()
	if !w.stream {
		s.metrics.seconds.WithLabelValues(w.route).Observe(time.Since(begun).Seconds())
	}
	s.log.Debug("request", "method", r.Method, "route", w.route, "code", code, "bytes", w.bytes,
		"remote", remoteHost(r), "milliseconds", milliseconds(begun))
}

// readBody takes in the body, which no request needs, and then lifts the deadline for reading: once it passes, net/http
// takes the client for gone and cancels the request.
func (s *Server) readBody(w *response, r *http.Request) bool {
	_, err := io.Copy(io.Discard, http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		w.Header().Set("Connection", "close")
		var tooLarge *http.MaxBytesError
		if errors.As(err, &tooLarge) {
			fail(w, http.StatusRequestEntityTooLarge, "the request has a body; leave it out")
		} else {
			fail(w, http.StatusBadRequest, "the request's body can't be read; leave it out")
		}
		return false
	}
	_ = w.conn.SetReadDeadline(time.Time{})
	return true
}

// inner is around one route: the access rule and the slot.
func (s *Server) inner(rt route) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rw := w.(*response)
		rw.route, rw.stream = rt.name(), rt.stream
		if rt.open {
			rt.serve(rw, r)
			return
		}
		no := s.refuse(rt, r)
		if no != nil && no.code == http.StatusUnauthorized && rt.page {
			r = r.WithContext(context.WithValue(r.Context(), withoutToken{}, true))
			no = nil
		}
		if no != nil {
			s.logRefusal(rt, r, no)
			if no.code == http.StatusUnauthorized {
				rw.Header().Set("WWW-Authenticate", `Bearer realm="capture"`)
			}
			fail(rw, no.code, no.text)
			return
		}
		if !rt.stream && !rt.page {
			select {
			case s.requests <- struct{}{}:
				defer func() { <-s.requests }()
			default:
				rw.Header().Set("Retry-After", "1")
				fail(rw, http.StatusServiceUnavailable, fmt.Sprintf("%d requests are being answered already; try again in a moment", maxRequests))
				return
			}
		}
		rt.serve(rw, r)
	})
}

func (s *Server) logRefusal(rt route, r *http.Request, no *refusal) {
	if skipped, ok := s.refusals.allow(); ok {
		s.log.Warn("request refused", "method", r.Method, "route", rt.name(), "code", no.code, "reason", no.text,
			"remote", remoteHost(r), "more_left_out", skipped)
	}
}

// recover turns a panic into an error line and, where nothing was sent yet, a 500; an answer that has begun is broken
// off, so that nobody takes it for whole.
func (s *Server) recover(w *response) {
	v := recover()
	if v == nil {
		return
	}
	if v != http.ErrAbortHandler {
		// A panic's own words could hold a vote's text, those of the runtime don't.
		what := fmt.Sprintf("%T", v)
		if e, ok := v.(runtime.Error); ok {
			what = e.Error()
		}
		if skipped, ok := s.failures.allow(); ok {
			s.log.Error("request panicked", "panic", what, "stack", string(debug.Stack()), "more_left_out", skipped)
		}
		if w.code == 0 {
			fail(w, http.StatusInternalServerError, "capture met an error of its own; its error log says more")
			return
		}
	}
	panic(http.ErrAbortHandler)
}

// remoteHost is the caller's address without the port.
func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}

func milliseconds(since time.Time) float64 {
	return float64(time.Since(since).Microseconds()) / 1000
}
