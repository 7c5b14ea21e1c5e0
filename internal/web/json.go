package web

import (
	"encoding/json"
	"net/http"
	"strconv"

	"capture/internal/foreign"
)

// Values of Cache-Control for answers that contain texts of users. No shared cache may store such an answer. With
// askEachTime, a browser may store feedback.json, but must ask each time whether the file has changed.
const (
	noStore     = "private, no-store"
	askEachTime = "private, no-cache"
)

// writeJSON answers with v as one line of JSON.
func writeJSON(w http.ResponseWriter, code int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		writeError(w, http.StatusInternalServerError, "the answer can't be written as JSON")
		return
	}
	body = append(foreign.JSON(body), '\n')
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	if h.Get("Cache-Control") == "" {
		h.Set("Cache-Control", noStore)
	}
	w.WriteHeader(code)
	w.Write(body)
}

// writeError answers with {"error": text}. The text should say what is wrong and what to do.
func writeError(w http.ResponseWriter, code int, text string) {
	writeJSON(w, code, struct {
		Error string `json:"error"`
	}{text})
}

// writeUnavailable answers that the server cannot serve the request now. The answer also tells the client after how many seconds
// it may try again.
func writeUnavailable(w http.ResponseWriter, retryAfterSeconds int, text string) {
	w.Header().Set("Retry-After", strconv.Itoa(retryAfterSeconds))
	writeError(w, http.StatusServiceUnavailable, text)
}

func serveNotFound(w http.ResponseWriter, _ *http.Request) {
	writeError(w, http.StatusNotFound, "no such path; see / for the page, /feedback.json for the file, /readyz for health")
}
