package web

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// access decides who is answered.
//
// If a token file is configured, the token decides. Otherwise only callers on this machine are answered, and only if
// the request's Host is a name that nobody but this machine can have: a web site can resolve its own name to 127.0.0.1
// (DNS rebinding), and the browser then sends that name. In both cases requests that a browser makes on behalf of
// another site are refused. A link on another site may still open the page, which holds no votes.
type access struct {
	token tokenFile
}

// refusal is why a request is refused.
type refusal struct {
	code int
	text string // for the client
	err  error  // for the log, if the fault is the server's
}

// check returns nil if the request may pass. page is true for the page and its parts.
func (a access) check(r *http.Request, page bool) *refusal {
	followsLink := page && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	if no := refuseForeign(r); no != nil && !followsLink {
		return no
	}
	if a.token != "" {
		return a.token.check(r)
	}
	return refuseRemote(r)
}

// refuseForeign refuses what a browser sends on behalf of another site.
func refuseForeign(r *http.Request) *refusal {
	site := r.Header.Get("Sec-Fetch-Site")
	if site != "" && site != "same-origin" && site != "none" {
		return forbid("the request comes from another web site; open capture's own page instead")
	}
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return forbid("the request's Origin is another web site; open capture's own page instead")
		}
	}
	return nil
}

// refuseRemote refuses callers on other machines.
func refuseRemote(r *http.Request) *refusal {
	const rule = "without a token file, capture answers only callers on its own machine"
	const hint = "start capture with --token-file and send the token as Authorization: Bearer …"
	if !isLoopback(remoteHost(r)) {
		return forbid(rule + "; " + hint)
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip"} {
		if r.Header.Get(name) != "" {
			return forbid("the request came through a proxy; " + rule + "; " + hint)
		}
	}
	if !isLoopbackName(r.Host) {
		return forbid("the request's Host is not a loopback name; use http://localhost or http://127.0.0.1, or " + hint)
	}
	return nil
}

func forbid(text string) *refusal { return &refusal{code: http.StatusForbidden, text: text} }

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// isLoopbackName reports whether a Host header can mean only this machine's loopback interface.
func isLoopbackName(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.EqualFold(host, "localhost") || isLoopback(host)
}

// remoteHost returns the caller's address without the port.
func remoteHost(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		return r.RemoteAddr
	}
	return host
}
