package web

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hashicorp/go-hclog"
)

// getTicket requests a ticket for target, with the token.
func (h *harness) getTicket(t *testing.T, target string) string {
	t.Helper()
	w := h.do("POST", ticketAddress(target), "Authorization", "Bearer abc", "Origin", "http://localhost:8080", "Sec-Fetch-Site", "same-origin")
	var answer struct {
		Ticket  string
		Seconds int
	}
	if err := json.Unmarshal(w.Body.Bytes(), &answer); err != nil || w.Code != 200 || len(answer.Ticket) < 26 || answer.Seconds != 30 {
		t.Fatalf("POST %s: %d %s", target, w.Code, w.Body)
	}
	return answer.Ticket
}

// ticketAddress returns the address at which a client requests a ticket for the download at target.
func ticketAddress(target string) string {
	path, query, _ := strings.Cut(target, "?")
	return "/api/downloads?file=" + strings.TrimPrefix(strings.TrimPrefix(path, "/"), "api/") + "&" + query
}

// TestTicketIsForOneDownload checks that a ticket replaces the token in one request for one address, for a short time.
func TestTicketIsForOneDownload(t *testing.T) {
	synctest.Test(t, testTicketIsForOneDownload) // gives the test a fake clock, because a wrong ticket is answered only after a second
}

func testTicketIsForOneDownload(t *testing.T) {
	token := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(token, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("abc")
	h := newTableHarness(t, fiveVotes(t), func(c *Config) {
		c.TokenFile = token
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: os.Stderr, Level: hclog.Off})
	})
	h.replace(t, "feedback.json", "[]\n")
	expect := func(what string, code int, method, target string, pairs ...string) {
		t.Helper()
		w := h.do(method, target, pairs...)
		if w.Code != code {
			t.Errorf("%s: %d, want %d: %s", what, w.Code, code, w.Body)
		}
		if code != 200 && method != "HEAD" {
			errorText(t, w)
		}
	}
	navigation := []string{"Sec-Fetch-Site", "same-origin", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	for _, target := range []string{"/api/votes.json", "/api/votes.jsonl", "/api/votes.csv", "/feedback.json"} {
		ticket := "?ticket=" + h.getTicket(t, target)
		expect("first use", 200, "GET", target+ticket, navigation...)
		expect("second use", 401, "GET", target+ticket, navigation...)
	}

	const target = "/api/votes.csv?q=caf%C3%A9+est&from=2026-01-01"
	ticket := "&ticket=" + h.getTicket(t, target)
	if w := h.do("GET", target+ticket); w.Code != 200 || !strings.Contains(w.Body.String(), "Rue de l'Église") || strings.Contains(w.Body.String(), "password") {
		t.Errorf("with a filter: %d %s", w.Code, w.Body)
	}
	// A proxy may change the order and the encoding of the parameters. The ticket must still be valid.
	expect("other form, same meaning", 200, "GET", "/api/votes.csv?ticket="+h.getTicket(t, target)+"&from=2026-01-01&q=caf%c3%a9%20est")
	for what, c := range map[string]struct {
		target string
		after  int // status code of a second request, which uses the same ticket for the ticket's own target
	}{
		"another filter":      {"/api/votes.csv?q=caf%C3%A9&from=2026-01-01", 401},
		"a filter more":       {target + "&to=2026-01-01", 401},
		"a filter twice":      {target + "&q=x", 401},
		"no filter":           {"/api/votes.csv?", 401},
		"another format":      {"/api/votes.json?q=caf%C3%A9+est&from=2026-01-01", 401},
		"an address without":  {"/api/votes?q=caf%C3%A9+est&from=2026-01-01", 401},
		"the whole file":      {"/feedback.json?q=caf%C3%A9+est&from=2026-01-01", 401},
		"a bad encoding":      {target + "&%", 200},
		"the summary":         {"/api/summary?q=caf%C3%A9+est&from=2026-01-01", 401},
		"a request unmatched": {target + "&ticket=", 200},
	} {
		ticket := "&ticket=" + h.getTicket(t, target)
		expect(what, 401, "GET", c.target+ticket)
		expect("after "+what, c.after, "GET", target+ticket)
	}
	ticket = h.getTicket(t, target)
	expect("to the forced flush", 401, "POST", "/snapshot?ticket="+ticket)
	expect("to another ticket", 401, "POST", ticketAddress(target)+"&ticket="+ticket)
	expect("HEAD", 401, "HEAD", target+"&ticket="+ticket)
	expect("a link on another site", 403, "GET", target+"&ticket="+ticket, "Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document")
	expect("another site's script", 403, "GET", target+"&ticket="+ticket, "Origin", "https://evil.example")
	expect("none of these used it up", 200, "GET", target+"&ticket="+ticket)
	expect("without the token", 401, "POST", ticketAddress(target))
	expect("with a wrong token", 401, "POST", ticketAddress(target), "Authorization", "Bearer wrong")
	expect("for another site", 403, "POST", ticketAddress(target), "Authorization", "Bearer abc", "Origin", "https://evil.example")
	expect("for no proper address", 400, "POST", ticketAddress(target)+"&%", "Authorization", "Bearer abc")
	expect("for a bad filter", 400, "POST", ticketAddress(target)+"&to=x", "Authorization", "Bearer abc")
	for _, file := range []string{"votes", "", "api/votes.csv", "../feedback.json", "constructor", "feedback.json/"} {
		expect("for "+file, 400, "POST", "/api/downloads?file="+file, "Authorization", "Bearer abc")
	}
	expect("an empty ticket", 401, "GET", target+"&ticket=")

	ticket = "&ticket=" + h.getTicket(t, target)
	time.Sleep(ticketTime - time.Nanosecond)
	expect("in time", 200, "GET", target+ticket)
	ticket = "&ticket=" + h.getTicket(t, target)
	time.Sleep(ticketTime)
	expect("too late", 401, "GET", target+ticket)

	ticket = "&ticket=" + h.getTicket(t, target)
	write("changed")
	expect("after a change of the token", 401, "GET", target+ticket)
	write("abc")
	if !h.export.exports.TryAcquire(maxExports) {
		t.Fatal("downloads are in progress already")
	}
	expect("for a download too many", 503, "POST", ticketAddress(target), "Authorization", "Bearer abc")
	h.export.exports.Release(maxExports)
	ticket = "&ticket=" + h.getTicket(t, target)
	if err := os.Remove(token); err != nil {
		t.Fatal(err)
	}
	expect("without a token file", 503, "GET", target+ticket)
}

// Of many concurrent requests with the same ticket, one is served. The ticket is in no log.
func TestTicketIsUsedOnce(t *testing.T) {
	t.Parallel()
	log := &lockedBuffer{}
	h := newTableHarness(t, fiveVotes(t), func(c *Config) {
		c.TokenFile = writeToken(t)
		c.Logger = hclog.New(&hclog.LoggerOptions{Output: log, Level: hclog.Trace})
	})
	ticket := h.getTicket(t, "/api/votes.json")
	addr := h.serve(t)
	var served atomic.Int32
	var work sync.WaitGroup
	for range 20 {
		work.Go(func() {
			if w := h.do("GET", "/api/votes.json?ticket="+ticket); w.Code == 200 {
				served.Add(1)
			}
		})
	}
	work.Wait()
	if n := served.Load(); n != 1 {
		t.Errorf("%d of 20 were served", n)
	}
	// net/http may log a malformed request, so the test sends one that contains the ticket.
	c := dial(t, addr)
	c.Write([]byte("GET /api/votes.json?ticket=" + ticket + " HTTP/1.1\r\nHost: a b\r\n\r\n"))
	c.Read(make([]byte, 100))
	h.export.done.Flush()
	if s := log.String(); strings.Contains(s, ticket) || !strings.Contains(s, "request refused") {
		t.Errorf("log: %s", s)
	}
}

func TestTicketsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := newTableHarness(t, fiveVotes(t), func(c *Config) { c.TokenFile = writeToken(t) })
		for range maxTickets {
			h.getTicket(t, "/api/votes.json")
		}
		w := h.do("POST", ticketAddress("/api/votes.json"), "Authorization", "Bearer abc")
		if w.Code != 503 || w.Header().Get("Retry-After") == "" {
			t.Errorf("one ticket more: %d", w.Code)
		}
		errorText(t, w)
		time.Sleep(ticketTime)
		h.getTicket(t, "/api/votes.json")
		if n := len(h.tickets.open); n != 1 {
			t.Errorf("%d tickets are kept", n)
		}
	})
}

// TestTicketWithoutTokenFile checks that without a token file, a link needs no ticket, and a ticket gives no access.
func TestTicketWithoutTokenFile(t *testing.T) {
	h := newTableHarness(t, fiveVotes(t), nil)
	ticket := h.getTicket(t, "/api/votes.json")
	if w := h.do("GET", "/api/votes.json?ticket="+ticket); w.Code != 200 {
		t.Errorf("from this machine: %d", w.Code)
	}
	ticket = h.getTicket(t, "/api/votes.json")
	if w := h.do("GET", "/api/votes.json?ticket="+ticket, "Remote", "192.0.2.1:5"); w.Code != 403 {
		t.Errorf("from another machine: %d", w.Code)
	}
	if w := h.do("POST", ticketAddress("/api/votes.json"), "Remote", "192.0.2.1:5"); w.Code != 403 {
		t.Errorf("a ticket for another machine: %d", w.Code)
	}
}
