package web

import (
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// refusal is why a request is not answered, and what would help.
type refusal struct {
	code int
	text string
}

// refuse applies the access rule; nil lets the request in.
//
// With a token file the token decides. Without one the caller must be on this machine, and must know it by a name that
// only this machine has: another web site can make a browser resolve the site's own name to 127.0.0.1, and such a
// request has that name in its Host. In both cases a browser that says the request was made by another site is sent
// away. A link on another site may open the page, which holds no votes.
func (s *Server) refuse(rt route, r *http.Request) *refusal {
	opened := rt.page && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	if no := refuseForeign(r); no != nil && !opened {
		return no
	}
	if s.token != "" {
		return s.refuseToken(r)
	}
	return refuseRemote(r)
}

// refuseForeign refuses what a browser sends on behalf of another site.
func refuseForeign(r *http.Request) *refusal {
	site := r.Header.Get("Sec-Fetch-Site")
	if site != "" && site != "same-origin" && site != "none" {
		return &refusal{http.StatusForbidden, "the request comes from another web site; open capture's own page instead"}
	}
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return &refusal{http.StatusForbidden, "the request's Origin is another web site; open capture's own page instead"}
		}
	}
	return nil
}

// refuseRemote lets only this machine in.
func refuseRemote(r *http.Request) *refusal {
	const mend = "; start capture with --token-file and send the token as Authorization: Bearer …"
	if !loopback(remoteHost(r)) {
		return &refusal{http.StatusForbidden, "without a token file capture answers callers on its own machine only" + mend}
	}
	for _, name := range []string{"Forwarded", "X-Forwarded-For", "X-Real-Ip"} {
		if r.Header.Get(name) != "" {
			return &refusal{http.StatusForbidden, "the request was passed on by a proxy, and without a token file capture answers callers on its own machine only" + mend}
		}
	}
	if !localName(r.Host) {
		return &refusal{http.StatusForbidden, "the request's Host is not a name of this machine's loopback; use http://localhost or http://127.0.0.1, or" + mend[1:]}
	}
	return nil
}

func loopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// localName says whether a Host header can only mean this machine's loopback.
func localName(hostport string) bool {
	host := hostport
	if h, _, err := net.SplitHostPort(hostport); err == nil {
		host = h
	}
	host = strings.TrimSuffix(strings.TrimPrefix(host, "["), "]")
	return strings.EqualFold(host, "localhost") || loopback(host)
}
