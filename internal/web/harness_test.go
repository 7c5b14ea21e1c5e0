package web

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"capture/capture"
	"capture/internal/busy"
	"capture/snapshot"
)

// harness is a Server for tests that need no daemon.
type harness struct {
	*Server
	dir string
	log *lockedBuffer
	reg *prometheus.Registry

	accepted atomic.Int64 // number of connections that serve has accepted
}

func newHarness(t *testing.T, change func(*Config)) *harness {
	t.Helper()
	h := &harness{dir: t.TempDir(), log: &lockedBuffer{}, reg: prometheus.NewRegistry()}
	cfg := Config{
		View:   func() *snapshot.View { return nil },
		Status: func() capture.Status { return capture.Status{} },
		Flush: func(context.Context) (capture.SnapshotResult, error) {
			return capture.SnapshotResult{}, errors.New("no daemon")
		},
		Path:     filepath.Join(h.dir, "feedback.json"),
		Registry: h.reg,
		Logger:   hclog.New(&hclog.LoggerOptions{Output: h.log, JSONFormat: true, Level: hclog.Info}),
		Version:  "test",
	}
	if change != nil {
		change(&cfg)
	}
	var err error
	if h.Server, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	return h
}

// lockedBuffer is a buffer that a logger may write while a test reads.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// callers returns the two ends of a loopback connection within this process. For requests that go directly to the handler,
// request uses the addresses of these ends.
var callers = sync.OnceValues(func() (client, server net.Conn) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	defer l.Close()
	if client, err = net.Dial("tcp", l.Addr().String()); err != nil {
		panic(err)
	}
	if server, err = l.Accept(); err != nil {
		panic(err)
	}
	return client, server
})

// request returns a request that comes from this machine and has a name of this machine as its Host. pairs are names and
// values of headers. The names Host and Remote instead set the request's host and the caller's address.
func request(method, target string, pairs ...string) *http.Request {
	r := httptest.NewRequest(method, target, nil)
	client, server := callers()
	r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, server.LocalAddr()))
	r.Host, r.RemoteAddr = "localhost:8080", client.LocalAddr().String()
	for i := 0; i < len(pairs); i += 2 {
		switch pairs[i] {
		case "Host":
			r.Host = pairs[i+1]
		case "Remote":
			r.RemoteAddr = pairs[i+1]
		default:
			r.Header.Add(pairs[i], pairs[i+1])
		}
	}
	return r
}

func (h *harness) do(method, target string, pairs ...string) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.handler.ServeHTTP(w, request(method, target, pairs...))
	return w
}

// replace replaces a file by a rename, as package store does.
func (h *harness) replace(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(h.dir, name)
	if err := os.WriteFile(path+".tmp", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		t.Fatal(err)
	}
}

// serve runs the server on a free loopback port until the test ends, and returns the server's address.
func (h *harness) serve(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- h.Run(ctx, countingListener{l, &h.accepted}) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("Run: %v", err)
		}
	})
	return l.Addr().String()
}

// countingListener counts the connections that it accepts.
type countingListener struct {
	net.Listener
	accepted *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err == nil {
		l.accepted.Add(1)
	}
	return c, err
}

// awaitAccepted waits until the server has accepted n connections. A successful dial does not show this, because the kernel
// establishes a connection before the server accepts it.
func (h *harness) awaitAccepted(t *testing.T, n int) {
	t.Helper()
	for limit, began := busy.Limit(30*time.Second), time.Now(); h.accepted.Load() < int64(n); time.Sleep(time.Millisecond) {
		if time.Since(began) > limit {
			t.Fatalf("after %s, %d of %d connections are accepted", limit, h.accepted.Load(), n)
		}
	}
}

func errorText(t *testing.T, w *httptest.ResponseRecorder) string {
	t.Helper()
	var body struct {
		Error string `json:"error"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &body); err != nil || body.Error == "" {
		t.Errorf("the answer %d %q is no JSON error: %v", w.Code, w.Body, err)
	}
	return body.Error
}

// dial opens a TCP connection with a deadline, so that a test cannot hang.
func dial(t *testing.T, addr string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(60 * time.Second))
	return c
}

func writeToken(t *testing.T) string {
	h := &harness{dir: t.TempDir()}
	h.replace(t, "token", "abc\n")
	return h.dir + "/token"
}
