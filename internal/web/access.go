package web

import (
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
)

// access decides which requests are answered.
//
// If a token file is configured, access answers only requests with the token. Otherwise access answers only requests that come
// from capture's own user or root, on this machine and without a proxy; see localCallers. In both cases it refuses requests
// that a browser makes on behalf of another site. A link on another site may still open the page, which contains no votes.
type access struct {
	token *tokenFile   // nil if no token file is configured
	local localCallers // rule that applies if no token file is configured
}

func newAccess(tokenPath string, tickets *tickets, log hclog.Logger) access {
	if tokenPath != "" {
		return access{token: newTokenFile(tokenPath, tickets, log)}
	}
	local, err := newLocalCallers()
	if err != nil {
		log.Warn("every user of this machine is answered, because the system does not tell which user a caller is; "+
			"a token file (--token-file) keeps others out", "reason", err)
	}
	return access{local: local}
}

// refusal is the reason why a request is refused.
type refusal struct {
	code  int
	text  string        // message for the client
	err   error         // error for the log if capture cannot check the caller; otherwise nil
	delay time.Duration // time before the answer is sent
}

// check returns nil if the request is allowed, and the reason for the refusal otherwise. forPage must be true if the request
// is for the page or one of its files.
func (a access) check(r *http.Request, forPage bool) *refusal {
	followsLink := forPage && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
	// Many proxies change the Host of a request, which then differs from the Origin of capture's own page. If a token is required,
	// a different Host is allowed for two kinds of requests: those that the browser calls same-origin, and those for the page's
	// own files, which contain no votes.
	trustsProxy := a.token != nil && (forPage || r.Header.Get("Sec-Fetch-Site") == "same-origin")
	if no := refuseForeign(r, !trustsProxy); no != nil && !followsLink {
		return no
	}
	if a.token != nil {
		return a.token.check(r)
	}
	return a.local.check(r)
}

// refuseForeign returns a refusal if a browser sends the request on behalf of another site, and nil otherwise. If checkOrigin
// is set, an Origin that differs from Host counts as another site.
func refuseForeign(r *http.Request, checkOrigin bool) *refusal {
	site := r.Header.Get("Sec-Fetch-Site")
	if site != "" && site != "same-origin" && site != "none" {
		return forbid("the request comes from another web site; open capture's own page instead")
	}
	if !checkOrigin {
		return nil
	}
	for _, origin := range r.Header.Values("Origin") {
		u, err := url.Parse(origin)
		if err != nil || u.Host == "" || !strings.EqualFold(u.Host, r.Host) {
			return forbid("the request's Origin is another web site; open capture's own page instead")
		}
	}
	return nil
}

func forbid(text string) *refusal { return &refusal{code: http.StatusForbidden, text: text} }
