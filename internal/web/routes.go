package web

import (
	"fmt"
	"net/http"
	"path"
	"slices"
	"strings"
)

// route describes one kind of request: how the server answers it, and who is answered.
type route struct {
	method  string
	pattern string // path pattern of http.ServeMux
	serve   http.HandlerFunc

	public bool // whether everybody is answered; the access rule and the limit on requests do not apply
	page   bool // whether the route serves the page or one of its files; they contain no votes, so no token is needed, and the limit on requests does not apply
	stream bool // whether the answer never ends; the minimum rate and the limit on requests do not apply
}

// otherRoute is the name of the route for requests that match no other route.
const otherRoute = "other"

// name returns the route's name in metrics and logs.
func (rt route) name() string { return strings.TrimSuffix(rt.pattern, "{$}") }

// routes returns the routes of all requests that the server answers.
func (s *Server) routes(cfg *Config) []route {
	return []route{
		{method: "GET", pattern: "/healthz", serve: serveHealth, public: true},
		{method: "GET", pattern: "/readyz", serve: serveReadiness(cfg.Status), public: true},
		{method: "GET", pattern: "/metrics", serve: serveMetrics(cfg.Registry, cfg.Logger), public: true},
		{method: "GET", pattern: "/feedback.json", serve: s.file.serveFile},
		{method: "POST", pattern: "/snapshot", serve: s.flush.serveSnapshot},
		{method: "GET", pattern: "/{$}", serve: servePage, page: true},
		{method: "GET", pattern: "/static/{name}", serve: serveStatic, page: true},
		{method: "GET", pattern: "/api/summary", serve: s.summary.serveSummary},
		{method: "GET", pattern: "/api/votes", serve: s.votes.serveList},
		{method: "GET", pattern: "/api/votes/{key}", serve: s.votes.serveVote},
		{method: "GET", pattern: "/api/votes/{key}/markdown", serve: s.markdown.serveAnswers},
		{method: "GET", pattern: "/api/votes.json", serve: s.export.serveJSON},
		{method: "GET", pattern: "/api/votes.jsonl", serve: s.export.serveLines},
		{method: "GET", pattern: "/api/votes.csv", serve: s.export.serveCSV},
		{method: "POST", pattern: "/api/downloads", serve: s.tickets.serveTicket},
		{method: "GET", pattern: "/api/events", serve: s.events.serveStream, stream: true},
	}
}

// newMux returns a ServeMux for the routes. It answers an unknown path with 404 and a wrong method with 405, both as JSON.
// newMux passes each route to guard, which returns the handler to register for it.
func newMux(routes []route, guard func(route) http.Handler) *http.ServeMux {
	mux := http.NewServeMux()
	methods := map[string][]string{} // allowed methods by pattern
	for _, rt := range routes {
		mux.Handle(rt.method+" "+rt.pattern, guard(rt))
		methods[rt.pattern] = append(methods[rt.pattern], rt.method)
		if rt.method == "GET" {
			methods[rt.pattern] = append(methods[rt.pattern], "HEAD") // ServeMux answers HEAD like GET
		}
	}
	for pattern, allowed := range methods {
		slices.Sort(allowed)
		allow := strings.Join(allowed, ", ")
		mux.Handle(pattern, guard(route{pattern: otherRoute, public: true, serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Allow", allow)
			writeError(w, http.StatusMethodNotAllowed, fmt.Sprintf("this path accepts only %s", allow))
		}}))
	}
	mux.Handle("/", guard(route{pattern: otherRoute, public: true, serve: serveNotFound}))
	return mux
}

// isCleanPath reports whether the path of a request is in its shortest form. ServeMux would redirect most other paths, such
// as a path with two slashes in a row, to the shortest form. The middleware answers 404 instead.
func isCleanPath(r *http.Request) bool {
	p := r.URL.EscapedPath()
	return p == path.Clean(p)
}
