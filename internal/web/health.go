package web

import (
	"net/http"

	"capture/capture"
)

// serveHealth answers 200 as long as the process works.
func serveHealth(w http.ResponseWriter, _ *http.Request) {
	writeJSON(w, http.StatusOK, map[string]string{"status": "ok"})
}

// serveReadiness answers with the daemon's status. The code is 200 if feedback.json follows the table, and 503 otherwise.
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
