package web

import (
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// route is one request that the Server answers.
type route struct {
	method string
	path   string // as http.ServeMux takes it
	serve  http.HandlerFunc

	open   bool // to all, without token, and never refused for want of a slot
	page   bool // the page and its parts, which hold no votes: they come without the token, too
	stream bool // without end: no lowest rate, no slot
}

// other is the route of requests that no route takes.
const other = "other"

// name is the route in metrics and logs.
func (rt route) name() string { return strings.TrimSuffix(rt.path, "{$}") }

func (s *Server) routes(cfg Config) *http.ServeMux {
	metrics := promhttp.HandlerFor(cfg.Gatherer, promhttp.HandlerOpts{
		ErrorLog:            s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Warn}),
		ErrorHandling:       promhttp.ContinueOnError,
		MaxRequestsInFlight: 8,
	})
	routes := []route{
		{method: "GET", path: "/healthz", serve: s.health, open: true},
		{method: "GET", path: "/readyz", serve: s.ready, open: true},
		{method: "GET", path: "/metrics", serve: metrics.ServeHTTP, open: true},
		{method: "GET", path: "/feedback.json", serve: s.download},
		{method: "POST", path: "/snapshot", serve: s.snapshot},
		{method: "GET", path: "/{$}", serve: s.index, page: true},
		{method: "GET", path: "/static/{name}", serve: s.static, page: true},
		{method: "GET", path: "/api/summary", serve: s.summarize},
		{method: "GET", path: "/api/votes", serve: s.votes},
		{method: "GET", path: "/api/votes/{key}", serve: s.vote},
		{method: "GET", path: "/api/votes.json", serve: s.exportJSON},
		{method: "GET", path: "/api/votes.csv", serve: s.exportCSV},
		{method: "GET", path: "/api/events", serve: s.events, stream: true},
	}
	mux := http.NewServeMux()
	allowed := map[string][]string{}
	for _, rt := range routes {
		mux.Handle(rt.method+" "+rt.path, s.inner(rt))
		allowed[rt.path] = append(allowed[rt.path], rt.method)
		if rt.method == "GET" {
			allowed[rt.path] = append(allowed[rt.path], "HEAD")
		}
	}
	for p, methods := range allowed {
		slices.Sort(methods)
		allow := strings.Join(methods, ", ")
		mux.Handle(p, s.inner(route{path: other, open: true, serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allow)
			fail(w, http.StatusMethodNotAllowed, fmt.Sprintf("this path takes %s only", allow))
		}}))
	}
	mux.Handle("/", s.inner(route{path: other, open: true, serve: notFound}))
	return mux
}

func notFound(w http.ResponseWriter, _ *http.Request) {
	fail(w, http.StatusNotFound, "there is nothing here; see / for the page, /feedback.json for the file, /readyz for health")
}

// clean says whether a path is in its shortest form: ServeMux would answer any other with a redirect.
func clean(r *http.Request) bool {
	p := r.URL.EscapedPath()
	return p == path.Clean(p)
}
