package web

import (
	"net/http"

	"capture/capture"
)

// serveHealth answers as long as the process works.
func serveHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// serveReadiness answers 200 if feedback.json follows the table, else 503; in both cases with the status.
func serveReadiness(status func() capture.Status) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		st := status()
		code := http.StatusOK
		if !st.Ready {
			code = http.StatusServiceUnavailable
		}
		writeJSON(w, code, st)
	}
}
