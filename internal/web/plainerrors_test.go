package web

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// Every error is JSON, including the errors that package net/http writes before any handler is called.
func TestEveryErrorIsJSON(t *testing.T) {
	h := newTableHarness(t, fiveVotes(t), nil)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go h.Run(t.Context(), l)
	const end = "\r\nHost: localhost\r\nConnection: close\r\n"
	for request, want := range map[string]int{
		"GET /nowhere HTTP/1.1" + end + "\r\n":                                       404,
		"GET /api/votes/99 HTTP/1.1" + end + "\r\n":                                  404,
		"GET /static/x.js HTTP/1.1" + end + "\r\n":                                   404,
		"GET //api/votes HTTP/1.1" + end + "\r\n":                                    404,
		"POST /api/votes HTTP/1.1" + end + "\r\n":                                    405,
		"TRACE / HTTP/1.1" + end + "\r\n":                                            405,
		"GET /api/votes?limit=0 HTTP/1.1" + end + "\r\n":                             400,
		"GET /api/votes?q=%zz HTTP/1.1" + end + "\r\n":                               400,
		"GET /api/votes.csv?tag=a;b HTTP/1.1" + end + "\r\n":                         400,
		"GET /%zz HTTP/1.1" + end + "\r\n":                                           400,
		"nonsense\r\n\r\n":                                                           400,
		"GET / HTTP/1.1\r\n\r\n":                                                     400,
		"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n":                               400,
		"GET / HTTP/3.0" + end + "\r\n":                                              505,
		"POST /snapshot HTTP/1.1" + end + "Transfer-Encoding: x\r\n\r\n":             501,
		"POST /snapshot HTTP/1.1" + end + "Content-Length: x\r\n\r\n":                400,
		"GET / HTTP/1.1" + end + "X: " + strings.Repeat("x", 64<<10) + "\r\n\r\n":    431,
		"POST /snapshot HTTP/1.1" + end + "Content-Length: 5000\r\n\r\n":             413,
		"POST /snapshot HTTP/1.1" + end + "Content-Length: 10\r\n\r\nx":              400, // the request ends before the end of its body
		"GET /api/votes HTTP/1.1" + end + "Origin: http://evil.example\r\n\r\n":      403,
		"GET /feedback.json HTTP/1.1" + end + "Range: bytes=9999999-\r\n\r\n":        503, // there is no file yet
		"GET /api/votes HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n": 403,
	} {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		sent := strings.TrimSuffix(request, "x")
		if _, err := io.WriteString(c, request); err != nil {
			t.Fatal(err)
		}
		if sent != request {
			c.(*net.TCPConn).CloseWrite()
		}
		answer, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%.60q: %v", request, err)
			continue
		}
		body, err := io.ReadAll(answer.Body)
		var said struct{ Error string }
		if answer.StatusCode != want || answer.Header.Get("Content-Type") != "application/json" || err != nil || json.Unmarshal(body, &said) != nil || said.Error == "" {
			t.Errorf("%.60q: %s %v %q, %v", request, answer.Status, answer.Header, body, err)
		}
	}
}
