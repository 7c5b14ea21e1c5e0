package web

import (
	"net/http"
	"time"
)

// responseWriter records the answer for the log and the metrics. It also extends the write deadline while the answer is
// written. A slow client may therefore take long for a large file, but a client that stops reading, or reads more slowly than
// minRate, is disconnected.
type responseWriter struct {
	http.ResponseWriter
	conn   *http.ResponseController
	route  string // name of the route, for the log and the metrics
	stream bool   // whether the answer never ends; the minimum rate does not apply

	received time.Time // time at which the request arrived
	start    time.Time // time at which the answer began; equal to received until then
	code     int       // status code of the answer; 0 until the header is written
	bytes    int64     // bytes of the body written so far
}

// recorded returns w itself if it is the responseWriter that the middleware passed to the handler. If the handler was called
// without the middleware, recorded wraps w in a new one.
func recorded(w http.ResponseWriter) *responseWriter {
	if rw, ok := w.(*responseWriter); ok {
		return rw
	}
	now := time.Now()
	rw := &responseWriter{ResponseWriter: w, conn: http.NewResponseController(w), received: now, start: now}
	rw.extendDeadline() // the deadline of the connection's previous request may have passed
	return rw
}

// extendDeadline sets the deadline for the next write. It ignores the error, because setting a deadline fails only on
// connections that have no deadlines, such as those in tests.
func (w *responseWriter) extendDeadline() {
	deadline := time.Now().Add(pieceTimeout)
	if !w.stream {
		atMinRate := w.start.Add(rateGrace + time.Duration(w.bytes/minRate)*time.Second)
		if atMinRate.Before(deadline) {
			deadline = atMinRate
		}
	}
	_ = w.conn.SetWriteDeadline(deadline)
}

func (w *responseWriter) WriteHeader(code int) {
	if w.code == 0 && code >= 200 {
		w.code = code
		w.start = time.Now() // the time until now was capture's own work, not the client's
		w.extendDeadline()
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *responseWriter) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.extendDeadline()
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

func (w *responseWriter) elapsedMilliseconds() float64 {
	return float64(time.Since(w.received).Microseconds()) / 1000
}

// Unwrap lets http.ResponseController reach the connection.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
