package web

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"strings"

	"capture/internal/peeruser"
)

// localCallers decides which requests are answered without a token: those of callers that could read capture's memory and files
// anyway. A request must meet all of these rules:
//
//   - The connection comes from this machine's loopback interface.
//   - No proxy has forwarded the request, as far as its header fields show.
//   - The request's Host is a name that can only mean this machine. A web site can make its own name resolve to 127.0.0.1 (DNS
//     rebinding), but the browser then sends that name as the Host.
//   - The caller's socket belongs to capture's own user or to root. A proxy that adds no header field usually runs as another
//     user. This rule does not apply if the system does not report the user of a socket.
type localCallers struct {
	knowsUsers bool // whether the system reports the user of a caller's socket
}

// newLocalCallers returns an error if the system does not report the users of sockets. The localCallers can be used even then:
// they apply the other rules.
func newLocalCallers() (localCallers, error) {
	err := peeruser.Check()
	return localCallers{knowsUsers: err == nil}, err
}

const (
	localRule = "without a token file, capture answers only its own user and root on its own machine"
	tokenHint = "start capture with --token-file and send the token as Authorization: Bearer …"
)

// check returns nil if the request is allowed, and the reason for the refusal otherwise.
func (l localCallers) check(r *http.Request) *refusal {
	switch {
	case !isLoopback(remoteHost(r)):
		return forbid(localRule + "; " + tokenHint)
	case hasProxyHeader(r.Header):
		return forbid("the request came through a proxy; " + localRule + "; " + tokenHint)
	case !isLoopbackName(r.Host):
		return forbid("the request's Host is not a loopback name; use http://localhost or http://127.0.0.1, or " + tokenHint)
	case !l.knowsUsers:
		return nil
	}
	switch uid, err := callerUser(r); {
	case errors.Is(err, peeruser.ErrNoSocket):
		return forbid("the caller's user is unknown, because its connection is closed or redirected; " + localRule + "; " + tokenHint)
	case err != nil:
		text := "capture can't find out which user the caller is; see the error log"
		return &refusal{code: http.StatusServiceUnavailable, text: text, err: err}
	case uid != 0 && !peeruser.IsOwnUser(uid):
		return forbid("the caller is another user of this machine; " + localRule + "; " + tokenHint)
	}
	return nil
}

// callerUser returns the user who owns the caller's socket.
func callerUser(r *http.Request) (uid uint32, err error) {
	caller, err := netip.ParseAddrPort(r.RemoteAddr)
	if err != nil {
		return 0, err
	}
	server, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	if !ok {
		return 0, peeruser.ErrNoSocket
	}
	return peeruser.Lookup(caller, server.AddrPort())
}

// proxyHeaders are header fields that proxies, load balancers and content delivery networks add to a request. Browsers, curl
// and capture do not send them.
var proxyHeaders = []string{"Forwarded", "Via", "X-Real-Ip", "True-Client-Ip", "Client-Ip", "X-Client-Ip", "X-Cluster-Client-Ip",
	"X-Original-Host", "X-Proxyuser-Ip", "X-Remote-Addr", "X-Cloud-Trace-Context", "X-Varnish"}

// proxyPrefixes are prefixes of further header fields that proxies add.
var proxyPrefixes = []string{"X-Forwarded", "X-Original-F", "Cf-", "Cdn-Loop", "Fastly-", "Akamai-", "X-Akamai-", "X-Azure-", "X-Arr-",
	"X-Amz-Cf-", "X-Amzn-", "X-Appengine-", "X-Envoy-", "X-Haproxy-", "X-Nginx-", "X-Traefik-"}

// hasProxyHeader reports whether the request has a header field of a proxy. It does not look at the values, because the
// first of two fields with the same name may be empty: if a client sends an empty field, a proxy adds the address in a
// second field of this name.
func hasProxyHeader(h http.Header) bool {
	for name := range h {
		for _, proxy := range proxyHeaders {
			if strings.EqualFold(name, proxy) {
				return true
			}
		}
		for _, prefix := range proxyPrefixes {
			if len(name) >= len(prefix) && strings.EqualFold(name[:len(prefix)], prefix) {
				return true
			}
		}
	}
	return false
}

func isLoopback(host string) bool {
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// isLoopbackName reports whether a Host header can only mean this machine's loopback interface.
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
