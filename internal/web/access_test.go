package web

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/hashicorp/go-hclog"

	"capture/capture"
)

func TestAccessWithoutToken(t *testing.T) {
	h := newHarness(t, nil)
	h.replace(t, "feedback.json", "[]\n")
	client, _ := callers()
	mapped := strings.Replace(client.LocalAddr().String(), "127.0.0.1", "[::ffff:127.0.0.1]", 1)
	for _, c := range []struct {
		name  string
		pairs []string
		code  int
	}{
		{"this machine", nil, 200},
		{"by address", []string{"Host", "127.0.0.1:8080"}, 200},
		{"by another loopback address", []string{"Host", "127.8.9.1"}, 200},
		{"by IPv6", []string{"Host", "[::1]:8080"}, 200},
		{"by IPv6 without port", []string{"Host", "[::1]"}, 200},
		{"mapped IPv4", []string{"Remote", mapped}, 200},
		{"a token nobody asked for", []string{"Authorization", "Bearer x"}, 200},
		{"own page", []string{"Origin", "http://localhost:8080", "Sec-Fetch-Site", "same-origin"}, 200},
		{"typed by the user", []string{"Sec-Fetch-Site", "none"}, 200},

		{"another machine", []string{"Remote", "192.0.2.7:4000"}, 403},
		{"another machine's IPv6", []string{"Remote", "[2001:db8::1]:4000"}, 403},
		{"no address", []string{"Remote", "@"}, 403},
		{"no such connection", []string{"Remote", "127.0.0.1:1"}, 403},
		{"no such connection, IPv6", []string{"Remote", "[::1]:1"}, 403},
		{"rebound name", []string{"Host", "evil.example:8080"}, 403},
		{"rebound name that looks local", []string{"Host", "localhost.evil.example"}, 403},
		{"name of an address", []string{"Host", "127.0.0.1.evil.example"}, 403},
		{"no name", []string{"Host", ""}, 403},
		{"unspecified address", []string{"Host", "0.0.0.0:8080"}, 403},
		{"another site's script", []string{"Origin", "https://evil.example"}, 403},
		{"another port's script", []string{"Origin", "http://localhost:3000"}, 403},
		{"a sandboxed frame", []string{"Origin", "null"}, 403},
		{"two origins", []string{"Origin", "http://localhost:8080", "Origin", "https://evil.example"}, 403},
		{"cross-site", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"same-site is another port", []string{"Sec-Fetch-Site", "same-site"}, 403},
	} {
		w := h.do("GET", "/feedback.json", c.pairs...)
		if w.Code != c.code {
			t.Errorf("%s: %d, want %d: %s", c.name, w.Code, c.code, w.Body)
		}
		if c.code != 200 {
			errorText(t, w)
		}
		if cache := w.Header().Get("Cache-Control"); !strings.HasPrefix(cache, "private, ") {
			t.Errorf("%s: Cache-Control %q", c.name, cache)
		}
		for name := range w.Header() {
			if strings.HasPrefix(name, "Access-Control-") {
				t.Errorf("%s: %s was sent", c.name, name)
			}
		}
	}
	if w := h.do("POST", "/snapshot", "Origin", "https://evil.example"); w.Code != 403 {
		t.Errorf("a cross-site post: %d", w.Code)
	}
	if s := h.log.String(); !strings.Contains(s, "request refused") || strings.Count(s, "request refused") > logBurst {
		t.Errorf("refusals are to be logged, a few of them: %s", s)
	}
}

func TestAccessWithToken(t *testing.T) {
	synctest.Test(t, testAccessWithToken) // gives the test a fake clock, because a wrong token is answered only after a second
}

func testAccessWithToken(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	h := newHarness(t, func(c *Config) { c.TokenFile = path })
	h.replace(t, "feedback.json", "[]\n")
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(what string, code int, pairs ...string) {
		t.Helper()
		w := h.do("GET", "/feedback.json", append([]string{"Remote", "192.0.2.7:4000", "Host", "capture.example"}, pairs...)...)
		if w.Code != code {
			t.Errorf("%s: %d, want %d: %s", what, w.Code, code, w.Body)
		}
		if code != 200 {
			errorText(t, w)
		}
		if (code == 401) != (w.Header().Get("WWW-Authenticate") != "") {
			t.Errorf("%s: WWW-Authenticate %q with %d", what, w.Header().Get("WWW-Authenticate"), code)
		}
	}
	bearer := func(token string) []string { return []string{"Authorization", "Bearer " + token} }

	expect("no token file", 503, bearer("")...)
	write("")
	expect("empty token file, empty token", 503, bearer("")...)
	expect("empty token file, no token", 503)
	write(" \n")
	expect("blank token file", 503, bearer(" ")...)
	write("two words\n")
	expect("two words", 503, bearer("two words")...)
	write(strings.Repeat("x", maxTokenBytes+1))
	expect("endless token", 503, bearer(strings.Repeat("x", maxTokenBytes+1))...)

	write("  first-secret\n")
	expect("right", 200, bearer("first-secret")...)
	expect("lower case scheme", 200, "Authorization", "bearer first-secret")
	expect("none", 401)
	expect("wrong", 401, bearer("other")...)
	expect("its beginning", 401, bearer("first")...)
	expect("longer", 401, bearer("first-secret-")...)
	expect("other scheme", 401, "Authorization", "Basic first-secret")
	expect("sent twice", 401, append(bearer("first-secret"), bearer("first-secret")...)...)
	expect("right, for another site", 403, append(bearer("first-secret"), "Origin", "https://evil.example")...)
	expect("right, from the page behind a proxy that changes Host", 200, append(bearer("first-secret"), "Origin", "https://tools.example", "Sec-Fetch-Site", "same-origin")...)
	expect("right, cross-site", 403, append(bearer("first-secret"), "Sec-Fetch-Site", "cross-site")...)
	if w := h.do("GET", "/feedback.json"); w.Code != 401 {
		t.Errorf("this machine needs the token, too: %d", w.Code)
	}

	write("other-secret\n") // a token of the same length, written right after the first token
	expect("the old one", 401, bearer("first-secret")...)
	expect("the new one", 200, bearer("other-secret")...)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	expect("file gone", 503, bearer("other-secret")...)
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	expect("a folder", 503, bearer("other-secret")...)
	if s := h.log.String(); strings.Contains(s, "secret") {
		t.Errorf("a token is in the log: %s", s)
	}
}

// TestVotesAreForPrivateCachesOnly checks that no shared cache may store votes, or an answer that refuses votes.
func TestVotesAreForPrivateCachesOnly(t *testing.T) {
	token := writeToken(t)
	h := newTableHarness(t, fiveVotes(t), func(c *Config) {
		c.TokenFile = token
		c.Flush = func(context.Context) (capture.SnapshotResult, error) { return capture.SnapshotResult{}, nil }
	})
	h.replace(t, "feedback.json", "[]\n")
	for _, rt := range h.routes(&Config{Status: func() capture.Status { return capture.Status{} }, Registry: h.reg, Logger: hclog.NewNullLogger()}) {
		if rt.public || rt.page {
			continue
		}
		target := strings.Replace(rt.pattern, "{key}", "1", 1)
		if rt.pattern == "/api/downloads" {
			target += "?file=votes.csv"
		}
		ctx, cancel := context.WithCancel(t.Context())
		if rt.stream {
			cancel() // the stream then ends after its first event
		}
		for _, pairs := range [][]string{{"Authorization", "Bearer abc"}, nil} {
			w := httptest.NewRecorder()
			h.handler.ServeHTTP(w, request(rt.method, target, pairs...).WithContext(ctx))
			want := http.StatusOK
			if pairs == nil {
				want = http.StatusUnauthorized
			}
			if cache := w.Header().Get("Cache-Control"); w.Code != want || !strings.HasPrefix(cache, "private, no-") {
				t.Errorf("%s, %q: %d, Cache-Control %q", target, pairs, w.Code, cache)
			}
		}
		cancel()
	}
}

func TestAccessToThePage(t *testing.T) {
	h := newHarness(t, func(c *Config) { c.TokenFile = writeToken(t) })
	w := h.do("GET", "/", "Host", "capture.example", "Remote", "192.0.2.1:5")
	if w.Code != 401 || !strings.Contains(w.Body.String(), "<title>Feedback</title>") {
		t.Errorf("the page without the token: %d", w.Code)
	}
	if w = h.do("GET", "/", "Authorization", "Bearer abc"); w.Code != 200 {
		t.Errorf("the page with the token: %d", w.Code)
	}
	csp := w.Header().Get("Content-Security-Policy")
	if !strings.Contains(csp, "script-src 'self'") || strings.Contains(csp, "unsafe") {
		t.Errorf("policy %q", csp)
	}
	for _, name := range []string{"app.js", "style.css", "icon.svg", "markdown.js"} {
		w = h.do("GET", "/static/"+name)
		if w.Code != 200 || w.Header().Get("Content-Type") == "" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
			t.Errorf("%s: %d %v", name, w.Code, w.Header())
		}
		if w = h.do("GET", "/static/"+name, "If-None-Match", w.Header().Get("ETag")); w.Code != 304 {
			t.Errorf("%s again: %d", name, w.Code)
		}
	}
	for _, target := range []string{"/static/", "/static/..", "/static/%2e%2e%2fweb.go", "/static/nothing"} {
		if w = h.do("GET", target); w.Code != 404 {
			t.Errorf("%s: %d", target, w.Code)
		}
	}
	for _, target := range []string{"/api/votes", "/api/summary", "/api/events", "/api/votes/1", "/api/votes.json", "/api/votes.jsonl", "/api/votes.csv", "/feedback.json"} {
		if w = h.do("GET", target); w.Code != 401 {
			t.Errorf("%s without the token: %d", target, w.Code)
		}
	}

	h = newHarness(t, nil)
	link := []string{"Sec-Fetch-Site", "cross-site", "Sec-Fetch-Mode", "navigate", "Sec-Fetch-Dest", "document"}
	if w = h.do("GET", "/", link...); w.Code != 200 {
		t.Errorf("a link on another site to the page: %d", w.Code)
	}
	if w = h.do("GET", "/feedback.json", link...); w.Code != 403 {
		t.Errorf("a link on another site to the votes: %d", w.Code)
	}
	if w = h.do("GET", "/", append(link, "Host", "evil.example")...); w.Code != 403 {
		t.Errorf("the page under a rebound name: %d", w.Code)
	}
	if w = h.do("GET", "/", "Remote", "192.0.2.1:5"); w.Code != 403 {
		t.Errorf("the page from afar: %d", w.Code)
	}
}
