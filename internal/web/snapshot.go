package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"

	"github.com/hashicorp/go-hclog"

	"capture/capture"
)

// serveSnapshot forces a flush and answers when feedback.json has all that was committed before the request.
func serveSnapshot(flush func(context.Context) (capture.SnapshotResult, error), log hclog.Logger) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), snapshotTimeout)
		defer cancel()
		flushed, err := flush(ctx)
		if err != nil {
			if errors.Is(err, context.DeadlineExceeded) && ctx.Err() != nil {
				err = fmt.Errorf("feedback.json was not written within %s; see /readyz for the reason", snapshotTimeout)
			}
			log.Warn("forced flush failed", "remote", remoteHost(r), "error", err)
			writeError(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		log.Info("forced flush", "remote", remoteHost(r), "rows", flushed.Rows, "bytes", flushed.Bytes, "lsn", flushed.LSN,
			"milliseconds", flushed.Millis)
		writeJSON(w, http.StatusOK, flushed)
	}
}
