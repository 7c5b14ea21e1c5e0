package web

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"capture/capture"
	"capture/internal/busy"
)

// checkHealth requests /healthz ten times. Each request uses a new connection, and must be answered within a second, or within
// a longer time on a busy machine.
func checkHealth(t *testing.T, addr, while string) {
	t.Helper()
	client := http.Client{Timeout: busy.Limit(time.Second), Transport: &http.Transport{DisableKeepAlives: true}}
	for i := range 10 {
		resp, err := client.Get("http://" + addr + "/healthz")
		if err != nil {
			t.Fatalf("%s: %d of 10 health checks were answered: %v", while, i, err)
		}
		resp.Body.Close()
	}
}

// Callers that hold connections can't prevent a health check.
func TestHealthWhileAllConnectionsAreTaken(t *testing.T) {
	t.Parallel()
	for while, send := range map[string]string{
		"idle":               "",
		"half a header":      "GET /healthz HTTP/1.1\r\nHost: ",
		"half a body":        "POST /snapshot HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\nx",
		"kept alive":         "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"refused":            "GET /feedback.json HTTP/1.1\r\nHost: evil.example\r\n\r\n",
		"a wrong token":      "GET /feedback.json HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer wrong\r\n\r\n",
		"many event streams": "GET /api/events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer abc\r\n\r\n",
	} {
		h := newHarness(t, func(c *Config) {
			if while == "a wrong token" || while == "many event streams" {
				c.TokenFile = writeToken(t)
			}
		})
		addr := h.serve(t)
		var conns []net.Conn
		for range 600 {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			conns = append(conns, c)
			io.WriteString(c, send) // fails if the server has already closed the connection to make room
		}
		h.awaitAccepted(t, len(conns))
		checkHealth(t, addr, while)
		for _, c := range conns {
			c.Close()
		}
	}
}

// TestAdmittedRequestsKeepTheirConnections checks that an admitted request keeps its connection, however many idle
// connections follow.
func TestAdmittedRequestsKeepTheirConnections(t *testing.T) {
	t.Parallel()
	var source atomic.Value
	source.Store("before")
	h := newTableHarness(t, fiveVotes(t), func(c *Config) {
		c.Status = func() capture.Status { return capture.Status{Source: source.Load().(string)} }
	})
	addr := h.serve(t)
	stream := dial(t, addr)
	fmt.Fprint(stream, "GET /api/events HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(stream), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("%v, %v", resp, err)
	}
	events := bufio.NewReader(resp.Body)
	if _, err := events.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	for range 2 * maxConnections {
		dial(t, addr)
	}
	h.awaitAccepted(t, 1+2*maxConnections)
	checkHealth(t, addr, "idle")
	source.Store("afterwards")
	for line := ""; !strings.Contains(line, "afterwards"); { // the server creates this event only now, so the stream is still open
		if line, err = events.ReadString('\n'); err != nil {
			t.Fatalf("the stream was cut off: %v", err)
		}
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	t.Parallel()
	h := newHarness(t, nil)
	addr := h.serve(t)
	const extra = 8
	var conns []net.Conn
	for range maxConnections + extra {
		conns = append(conns, dial(t, addr))
	}
	for i, c := range conns[:extra] { // the server must have closed the first connections, because they have waited longest
		if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
			t.Fatalf("connection %d was kept", i)
		}
	}
	last := conns[len(conns)-1]
	fmt.Fprint(last, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
	resp, err := http.ReadResponse(bufio.NewReader(last), nil)
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("the last connection: %v, %v", resp, err)
	}
}

// TestHeldConnectionsLeaveRoom checks that the connections that requests and streams can hold are fewer than the limit, so
// that there is always a connection that may be closed. A held connection must stay open, and a new one beyond the limit
// must be closed.
func TestHeldConnectionsLeaveRoom(t *testing.T) {
	if maxRequests+maxStreams >= maxConnections {
		t.Errorf("%d requests and %d streams can hold %d connections", maxRequests, maxStreams, maxConnections)
	}
	server, client := net.Pipe()
	defer client.Close()
	s := connections{limit: 1, open: map[net.Conn]*connection{}}
	held := s.add(server)
	held.setHeld(true)
	another, peer := net.Pipe()
	defer peer.Close()
	s.add(another)
	if _, err := another.Write([]byte("x")); err == nil {
		t.Error("a connection was kept beyond the limit")
	}
	if len(s.open) != 1 || s.open[server] != held {
		t.Error("the held connection was closed")
	}
	holdConn(context.Background())() // must not panic: without a server, a request has no connection to hold
	holdConn(httptest.NewRequest("GET", "/", nil).Context())()
}
