package web

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"capture/snapshot"
)

func TestUnknownPathsAndWrongMethods(t *testing.T) {
	h := newHarness(t, nil)
	for _, c := range []struct {
		method, target string
		code           int
		allow          string
	}{
		{"GET", "/nothing", 404, ""},
		{"GET", "/feedback.json/", 404, ""},
		{"GET", "//feedback.json", 404, ""},
		{"GET", "/../feedback.json", 404, ""},
		{"GET", "/%2e%2e/feedback.json", 404, ""},
		{"GET", "/%2e%2e%2fetc%2fpasswd", 404, ""},
		{"GET", "/feedback.json%00", 404, ""},
		{"GET", "/feedback.manifest.json", 404, ""},
		{"POST", "/feedback.json", 405, "GET, HEAD"},
		{"DELETE", "/feedback.json", 405, "GET, HEAD"},
		{"OPTIONS", "/feedback.json", 405, "GET, HEAD"},
		{"GET", "/snapshot", 405, "POST"},
		{"PUT", "/healthz", 405, "GET, HEAD"},
	} {
		w := h.do(c.method, c.target)
		if w.Code != c.code || w.Header().Get("Allow") != c.allow {
			t.Errorf("%s %s: %d, Allow %q; want %d, %q", c.method, c.target, w.Code, w.Header().Get("Allow"), c.code, c.allow)
		}
		errorText(t, w)
		if w.Header().Get("X-Content-Type-Options") != "nosniff" || w.Header().Get("Content-Security-Policy") == "" {
			t.Errorf("%s %s: security headers are missing: %v", c.method, c.target, w.Header())
		}
	}
}

func TestHealthAndMetricsAreOpen(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.TokenFile = "/nonexistent" })
	for _, target := range []string{"/healthz", "/metrics"} {
		w := h.do("GET", target, "Remote", "203.0.113.9:5", "Host", "capture.example")
		if w.Code != 200 {
			t.Errorf("GET %s from afar: %d %s", target, w.Code, w.Body)
		}
	}
	body := h.do("GET", "/metrics").Body.String()
	for _, want := range []string{`capture_http_requests_total{code="200",route="/healthz"} 1`, `capture_build_info{`,
		`capture_http_request_duration_seconds_count{route="/healthz"} 1`} {
		if !strings.Contains(body, want) {
			t.Errorf("/metrics lacks %s", want)
		}
	}
}

func TestLargeBodyIsRefused(t *testing.T) {
	h := newHarness(t, nil)
	r := request("GET", "/healthz")
	r.Body = io.NopCloser(strings.NewReader(strings.Repeat("x", maxBodyBytes+1)))
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, r)
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("a large body: %d", w.Code)
	}
	errorText(t, w)
}

func TestPanicIsLoggedWithoutItsText(t *testing.T) {
	h := newHarness(t, nil)
	serve := func(f http.HandlerFunc) (w *httptest.ResponseRecorder, v any) {
		w = httptest.NewRecorder()
		defer func() { v = recover() }()
		h.middleware.wrap(h.middleware.guard(route{pattern: "/x", public: true, serve: f})).ServeHTTP(w, request("GET", "/x"))
		return w, nil
	}
	w, v := serve(func(http.ResponseWriter, *http.Request) { panic("what a vote says") })
	if w.Code != 500 || v != nil {
		t.Errorf("a panic before the answer: %d, %v", w.Code, v)
	}
	errorText(t, w)
	if _, v = serve(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("half")); panic(1) }); v != http.ErrAbortHandler {
		t.Errorf("a panic within the answer must break it off: %v", v)
	}
	if s := h.log.String(); !strings.Contains(s, `"@level":"error"`) || strings.Contains(s, "what a vote says") {
		t.Errorf("log: %s", s)
	}
}

func TestRequestsAreBounded(t *testing.T) {
	h := newHarness(t, nil)
	h.replace(t, "feedback.json", "[]\n")
	if !h.middleware.requests.TryAcquire(maxRequests) {
		t.Fatal("requests are in progress already")
	}
	if w := h.do("GET", "/feedback.json"); w.Code != 503 || w.Header().Get("Retry-After") == "" {
		t.Errorf("beyond the last slot: %d", w.Code)
	}
	if w := h.do("GET", "/healthz"); w.Code != 200 {
		t.Errorf("health must not need a slot: %d", w.Code)
	}
	h.middleware.requests.Release(1)
	if w := h.do("GET", "/feedback.json"); w.Code != 200 {
		t.Errorf("with a slot free again: %d", w.Code)
	}
}

func TestSlowHeadersAreCutOff(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for headerTimeout")
	}
	h := newHarness(t, nil)
	addr := h.serve(t)
	slow := dial(t, addr)
	fmt.Fprint(slow, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ")
	if _, err := io.Copy(io.Discard, slow); err != nil {
		t.Fatalf("the connection was not closed: %v", err)
	}
	resp, err := http.Get("http://" + addr + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
}

func TestSlowBodyIsCutOff(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("waits for readTimeout")
	}
	h := newHarness(t, nil)
	addr := h.serve(t)
	slow := dial(t, addr)
	fmt.Fprint(slow, "POST /snapshot HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx")
	if _, err := io.Copy(io.Discard, slow); err != nil {
		t.Fatalf("the connection was not closed: %v", err)
	}
}

func TestHugeHeadersAreRefused(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	addr := h.serve(t)
	c := dial(t, addr)
	go fmt.Fprintf(c, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: %s\r\n\r\n", strings.Repeat("x", 1<<20))
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err == nil && resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("huge headers: %s", resp.Status)
	}
}

// A stop does not wait for a client that has stopped reading.
func TestStopWithAStuckDownload(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	big := filepath.Join(h.dir, "feedback.json")
	if err := os.WriteFile(big, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(big, 1<<30); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, l) }()
	c := dial(t, l.Addr().String())
	fmt.Fprint(c, "GET /feedback.json HTTP/1.1\r\nHost: localhost\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestHandlersAlone checks that a handler works without the middleware around it.
func TestHandlersAlone(t *testing.T) {
	h := newTableHarness(t, fiveVotes(t), nil)
	h.replace(t, "feedback.json", version(1))
	for name, c := range map[string]struct {
		serve http.HandlerFunc
		want  string
	}{
		"download": {h.file.serveFile, version(1)},
		"votes":    {h.votes.serveList, `"total":5`},
		"export":   {h.export.serveCSV, "PASSWORD policy"},
		"page":     {servePage, "<title>Feedback</title>"},
	} {
		w := httptest.NewRecorder()
		c.serve(w, request("GET", "/"))
		if w.Code != 200 || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s: %d, %d bytes", name, w.Code, w.Body.Len())
		}
	}
}

func TestConfigNamesWhatIsMissing(t *testing.T) {
	if _, err := New(Config{View: func() *snapshot.View { return nil }}); err == nil || !strings.Contains(err.Error(), "Status is missing") {
		t.Errorf("without a status: %v", err)
	}
}
