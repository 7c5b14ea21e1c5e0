package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hashicorp/go-hclog"

	"capture/capture"
	"capture/internal/foldlog"
)

// flushHandler serves requests that force a flush.
type flushHandler struct {
	flush    func(context.Context) (capture.SnapshotResult, error)
	flushes  *foldlog.Logger
	log      hclog.Logger
	failures logLimiter
}

func newFlushHandler(flush func(context.Context) (capture.SnapshotResult, error), log hclog.Logger) *flushHandler {
	return &flushHandler{flush: flush, flushes: foldlog.New(log, "forced flush"), log: log}
}

// serveSnapshot forces a flush. It answers when feedback.json contains everything that was committed before the request.
func (h *flushHandler) serveSnapshot(w http.ResponseWriter, r *http.Request) {
	ctx, cancel := context.WithTimeout(r.Context(), snapshotTimeout)
	defer cancel()
	flushed, err := h.flush(ctx)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
			err = fmt.Errorf("feedback.json was not written within %s; see /readyz for the reason", snapshotTimeout)
		}
		if skipped, ok := h.failures.allow(); ok {
			h.log.Warn("forced flush failed", "remote", remoteHost(r), "error", err, "more_left_out", skipped)
		}
		writeError(w, http.StatusServiceUnavailable, err.Error())
		return
	}
	h.flushes.Add(remoteHost(r), flushed.Bytes, "rows", flushed.Rows, "lsn", flushed.LSN, "milliseconds", flushed.Millis)
	writeJSON(w, http.StatusOK, flushed)
}
