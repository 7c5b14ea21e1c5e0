// Package web serves capture over HTTP: health, metrics, the download of feedback.json, the forced flush, and the feedback page
// with its API.
//
// [New] makes a [Server] for a daemon, and [Server.Run] serves until its context ends. Votes come from the daemon's memory, so
// the page works while Postgres is down. The download comes from disk, so it is the file that a restore would read.
//
// A request passes through the middleware (middleware.go), which applies the access rule (access.go), and then reaches the
// handler that routes.go assigns to it. Health and metrics are open to everybody. Everything else requires the bearer token if
// one is configured, except the page itself, which contains no votes. If no token is configured, only capture's own user and
// root are answered, and only on this machine (localcallers.go). limits.go contains the limits that protect the daemon from
// clients. connections.go decides which connection is closed when there are too many.
//
// # Files
//
// Access and connections:
//
//   - access.go, localcallers.go, token.go, tickets.go: who is answered
//   - connections.go, limits.go: connections, and limits on what a client may send
//   - middleware.go, responsewriter.go, plainerrors.go: headers, the access log, errors as JSON
//   - loglimit.go: a limit on the log lines that clients cause
//
// What is answered:
//
//   - routes.go: which handler answers a path
//   - page.go: the page, whose files are in static
//   - votes.go, summary.go, events.go: the API
//   - export.go, csv.go: votes as a download
//   - download.go, conditional.go, snapshot.go: feedback.json, and the forced flush
//   - health.go, metrics.go, debug.go: /healthz and /readyz, metrics, Go's profiles; what /readyz answers is in package capture
//   - markdown.go: the answer of a vote, parsed from Markdown
//
// Votes in memory:
//
//   - tableview.go, columnroles.go, namedcolumns.go: the table, and what its columns mean
//   - filter.go, search.go, timeorder.go, timevalue.go: which votes are shown, and in which order
//   - votecounts.go, tagcounts.go, questions.go: the counts of the summary
//   - hub.go: events to many clients
//   - json.go, keytext.go: JSON values and keys
//   - config.go: Config
package web

import (
	"context"
	"net"
	"net/http"
	"sync"

	"github.com/hashicorp/go-hclog"

	"capture/internal/foldlog"
	"capture/internal/markdown"
)

// Server answers HTTP requests for one daemon.
type Server struct {
	handler    http.Handler
	middleware *middleware
	log        hclog.Logger
	stopping   chan struct{} // closed when Run begins to stop

	file    *fileHandler
	flush   *flushHandler
	votes   *votesHandler
	export  *exportHandler
	summary *summaryHandler
	events  *eventsHandler
	columns *columnChecker
	tickets *tickets

	markdown *markdownHandler
}

// New returns a Server and registers its metrics. The caller calls Run once.
func New(cfg Config) (*Server, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	t := &tables{view: cfg.View, timeColumn: cfg.TimeColumn, tagsColumn: cfg.TagsColumn, log: cfg.Logger}
	stopping := make(chan struct{})
	columns := &columnChecker{status: cfg.Status, view: cfg.View, tables: t, log: cfg.Logger}
	cfg.Status = columns.checkedStatus
	tickets := &tickets{}
	s := &Server{
		middleware: newMiddleware(&cfg, tickets),
		log:        cfg.Logger,
		stopping:   stopping,

		file:    newFileHandler(cfg.Path, cfg.IsOwn, cfg.Logger),
		flush:   newFlushHandler(cfg.Flush, cfg.Logger),
		votes:   newVotesHandler(t),
		export:  newExportHandler(t, cfg.Logger),
		summary: &summaryHandler{tables: t, status: cfg.Status, title: cfg.Title, counter: voteCounter{stop: stopping}},
		events:  newEventsHandler(t, cfg.Status, stopping),
		columns: columns,
		tickets: tickets,

		markdown: &markdownHandler{t, markdown.NewParser(cfg.Logger), cfg.Logger},
	}
	tickets.downloads = map[string]download{
		"feedback.json": {"/feedback.json", s.file.serveFile},
		"votes.json":    {"/api/votes.json", s.export.serveJSON},
		"votes.jsonl":   {"/api/votes.jsonl", s.export.serveLines},
		"votes.csv":     {"/api/votes.csv", s.export.serveCSV},
	}
	s.handler = s.middleware.wrap(newMux(s.routes(&cfg), s.middleware.guard))
	return s, nil
}

// Run serves on l until ctx ends. When ctx ends, Run gives the requests in progress a moment to finish, and then aborts the
// requests that have not finished. It waits for all goroutines that it has started, and returns nil. Run closes l in any case.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	requests, cancelRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelRequests()
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		BaseContext:       func(net.Listener) context.Context { return requests },
	}
	var publishing sync.WaitGroup
	publishing.Go(s.events.run)
	publishing.Go(func() { s.columns.awaitTable(s.stopping) })
	err := serveUntilDone(ctx, srv, plainErrorListener{l}, maxConnections, func() {
		close(s.stopping)
		grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if srv.Shutdown(grace) != nil {
			cancelRequests()
			srv.Close()
		}
	})
	publishing.Wait()
	s.summary.counter.work.Wait()
	s.markdown.parser.Wait()
	for _, l := range []*foldlog.Logger{s.file.downloads, s.export.done, s.flush.flushes} {
		l.Flush()
	}
	return err
}
