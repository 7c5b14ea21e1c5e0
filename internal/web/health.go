package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// snapshotTimeout is far beyond what writing the file takes; a caller with less patience hangs up.
const snapshotTimeout = 5 * time.Minute

func (s *Server) health(w http.ResponseWriter, _ *http.Request) {
	answer(w, http.StatusOK, map[string]string{"status": "ok"})
}

func (s *Server) ready(w http.ResponseWriter, _ *http.Request) {
	st := s.status()
	code := http.StatusOK
	if !st.Ready {
		code = http.StatusServiceUnavailable
	}
	answer(w, code, st)
}

// snapshot is the forced flush.
func (s *Server) snapshot(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), snapshotTimeout)
	defer cancel()
	flushed, err := s.flush(ctx)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
			err = fmt.Errorf("feedback.json was not written within %s: see /readyz for what it waits for", snapshotTimeout)
		}
		s.log.Warn("forced flush failed", "remote", remoteHost(r), "error", err)
		fail(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	s.log.Info("forced flush", "remote", remoteHost(r), "rows", flushed.Rows, "bytes", flushed.Bytes, "lsn", flushed.LSN,
		"milliseconds", flushed.Millis)
	answer(w, http.StatusOK, flushed)
}
