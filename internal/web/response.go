package web

import (
	"net/http"
	"time"
)

const (
	chunkTimeout = 30 * time.Second // for one piece of an answer to leave
	slowestRate  = 8 << 10          // bytes a second, on average, once slowGrace is over
	slowGrace    = 2 * time.Minute
)

// response notes what was answered, and moves the write deadline along: a slow reader may take long for a big file, one
// that stopped reading, or reads a byte a minute, is cut off.
type response struct {
	http.ResponseWriter
	conn   *http.ResponseController
	route  string // for metrics and logs
	start  time.Time
	stream bool // no lowest rate
	code   int  // 0 until the header is written
	bytes  int64
}

func newResponse(w http.ResponseWriter) *response {
	rw := &response{ResponseWriter: w, conn: http.NewResponseController(w), route: other, start: time.Now()}
	rw.extend() // the deadline of the connection's request before may be over
	return rw
}

// extend sets the deadline for the next piece. Its error means that the connection has none to set, as in tests.
func (w *response) extend() {
	deadline := time.Now().Add(chunkTimeout)
	if !w.stream {
		last := w.start.Add(slowGrace + time.Duration(w.bytes/slowestRate)*time.Second)
		if last.Before(deadline) {
			deadline = last
		}
	}
	_ = w.conn.SetWriteDeadline(deadline)
}

func (w *response) WriteHeader(code int) {
	if w.code == 0 && code >= 200 {
		w.code = code
		w.start = time.Now() // what came before was our own work
		w.extend()
	}
	w.ResponseWriter.WriteHeader(code)
}

func (w *response) Write(p []byte) (int, error) {
	if w.code == 0 {
		w.WriteHeader(http.StatusOK)
	}
	w.extend()
	n, err := w.ResponseWriter.Write(p)
	w.bytes += int64(n)
	return n, err
}

// Unwrap lets http.ResponseController reach the connection.
func (w *response) Unwrap() http.ResponseWriter { return w.ResponseWriter }
