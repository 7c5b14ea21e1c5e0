package web

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
)

// TestEveryErrorIsJSON checks that every error is JSON, including the errors that package net/http writes before any handler
// is called.
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
		"POST /snapshot HTTP/1.1" + end + "Content-Length: 10\r\n\r\nx":              400, // the client sends only one byte of the body
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

// TestTextLikeAnErrorIsNotConverted checks that a vote's text that looks like an error of package net/http arrives
// unchanged, even if a Write of the server begins with this text.
func TestTextLikeAnErrorIsNotConverted(t *testing.T) {
	const head = "HTTP/1.1 404 Not Found"
	hostile := head + string(errorHeaders) + "404 page not found"
	pad := 3000
	for range 10 {
		r := newRowsTable(t, votesShape())
		r.vote(1, strings.Repeat("a", pad)+hostile, "", "{}", "", "2026-01-01 08:00:00")
		r.commit()
		c := dial(t, newTableHarness(t, r, nil).serve(t))
		if _, err := io.WriteString(c, "GET /api/votes.csv HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(c)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(raw)), nil)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		if err != nil || !bytes.Contains(body, []byte(hostile)) {
			t.Fatalf("the text starts at byte %d: %v, %.600q", bytes.Index(raw, []byte(head)), err, raw[max(0, len(raw)-600):])
		}
		// Package net/http writes 4 kB at a time, so the second Write begins after 4 kB. The next round adds padding before
		// the text, so that the second Write begins with the text.
		before := 4<<10 - bytes.Index(raw, []byte(head))
		if before == 0 {
			return
		}
		pad += before
	}
	t.Fatalf("no write began at the text, with %d bytes before it", pad)
}

// TestErrorAfterAnAnswerIsJSON checks that an error that follows an answer on the same connection is JSON, even if both
// requests arrived together.
func TestErrorAfterAnAnswerIsJSON(t *testing.T) {
	c := dial(t, newTableHarness(t, fiveVotes(t), nil).serve(t))
	if _, err := io.WriteString(c, strings.Repeat("GET /api/votes HTTP/1.1\r\nHost: localhost\r\n\r\n", 2)+"nonsense\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answers := bufio.NewReader(c)
	for i, want := range []int{200, 200, 400} {
		answer, err := http.ReadResponse(answers, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		body, err := io.ReadAll(answer.Body)
		if answer.StatusCode != want || answer.Header.Get("Content-Type") != "application/json" || err != nil || !json.Valid(body) {
			t.Errorf("answer %d: %s %v %q, %v", i, answer.Status, answer.Header, body, err)
		}
	}
}

// TestNextRequestDuringAnAnswer checks that the rest of an answer is not taken for an error and converted to JSON, even if
// the next request begins to arrive during the answer.
func TestNextRequestDuringAnAnswer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	client := dial(t, l.Addr().String())
	server, err := plainErrorListener{l}.Accept()
	if err != nil {
		t.Fatal(err)
	}
	const begin = "HTTP/1.1 200 OK\r\n\r\n"
	hostile := "HTTP/1.1 404 Not Found" + string(errorHeaders) + "404 page not found"
	write := func(c net.Conn, text string) {
		if _, err := io.WriteString(c, text); err != nil {
			t.Fatal(err)
		}
	}
	write(server, begin)
	write(client, "G")
	if _, err := server.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	write(server, hostile)
	server.Close()
	if got, err := io.ReadAll(client); err != nil || string(got) != begin+hostile {
		t.Errorf("%q, %v", got, err)
	}
}
