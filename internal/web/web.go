// Package web is capture over HTTP: health, metrics, the download of feedback.json, the forced flush, and the feedback
// page with the API behind it.
//
// [New] makes a [Server] for a daemon, [Server.Run] serves until its context ends. Votes are served from the daemon's
// memory, so the page works while Postgres is gone; the download comes from the disk, so it is what a restore would get.
//
// Health and metrics are open to all. Everything else needs the bearer token where a token file is set, and is answered
// to this machine only where none is; see access.go for the whole rule.
package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"capture/capture"
	"capture/snapshot"
)

const (
	maxHeader      = 16 << 10
	maxBody        = 4 << 10 // no request needs one
	maxConnections = 512     // more are closed unheard: files for flushing come first
	maxRequests    = 64      // at a time, of those that read votes or the disk

	headerTimeout = 5 * time.Second
	readTimeout   = 10 * time.Second
	idleTimeout   = 60 * time.Second
	stopTimeout   = 700 * time.Millisecond // for requests under way at a stop; the process has two seconds in all
)

// Config is what a Server needs to know.
type Config struct {
	Daemon     *capture.Daemon
	Path       string // of feedback.json
	TokenFile  string // holds the bearer token; "" answers this machine only
	Gatherer   prometheus.Gatherer
	Registerer prometheus.Registerer
	Logger     hclog.Logger
	Version    string

	Title      string // of the page; "" for one made from the table's name
	TimeColumn string // when a row was made; "" for the first timestamp
	TagsColumn string // "" for the first text[]
}

// Server answers HTTP requests for one daemon.
type Server struct {
	view   func() *snapshot.View
	status func() capture.Status
	flush  func(context.Context) (capture.SnapshotResult, error)

	path    string
	token   tokenFile
	log     hclog.Logger
	metrics *metrics

	title, timeColumn, tagsColumn string

	handler  http.Handler
	requests chan struct{} // one slot a request
	gzips    chan struct{} // one slot a compressed download
	scans    chan struct{} // one slot a search
	exports  chan struct{} // one slot an export
	refusals sparse
	failures sparse
	summary  summaries
	hub      hub
	stopping chan struct{} // closed when Run begins to stop
}

// New makes a Server and registers its metrics. Run starts it, once.
func New(cfg Config) *Server {
	s := &Server{
		view:   cfg.Daemon.View,
		status: cfg.Daemon.Status,
		flush:  cfg.Daemon.Snapshot,

		path:     cfg.Path,
		token:    tokenFile(cfg.TokenFile),
		log:      cfg.Logger,
		metrics:  newMetrics(cfg.Registerer, cfg.Version),
		requests: make(chan struct{}, maxRequests),
		gzips:    make(chan struct{}, maxGzips),
		scans:    make(chan struct{}, maxScans),
		exports:  make(chan struct{}, maxExports),
		hub:      newHub(),
		stopping: make(chan struct{}),

		title:      cfg.Title,
		timeColumn: cfg.TimeColumn,
		tagsColumn: cfg.TagsColumn,
	}
	s.handler = s.outer(s.routes(cfg))
	return s
}

// Run serves on l until ctx ends, then lets the requests under way finish for a moment, ends them, and waits for all
// that it started. It returns nil after such a stop, and closes l in any case.
func (s *Server) Run(ctx context.Context, l net.Listener) error {
	var conns sync.WaitGroup
	var open atomic.Int64
	requests, end := context.WithCancel(context.WithoutCancel(ctx))
	defer end()
	srv := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          s.log.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
		BaseContext:       func(net.Listener) context.Context { return requests },
		ConnState: func(c net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				conns.Add(1)
				if open.Add(1) > maxConnections {
					c.Close()
				}
			case http.StateClosed, http.StateHijacked:
				open.Add(-1)
				conns.Done()
			}
		},
	}

	var work sync.WaitGroup
	work.Go(s.follow)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(l) }()
	var err error
	select {
	case <-ctx.Done():
	case err = <-served:
		served <- err
		err = fmt.Errorf("serve http on %s: %w", l.Addr(), err)
	}

	close(s.stopping)
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		end()
		srv.Close()
	}
	if e := <-served; err == nil && !errors.Is(e, http.ErrServerClosed) {
		err = fmt.Errorf("serve http on %s: %w", l.Addr(), e)
	}
	conns.Wait()
	work.Wait()
	s.summary.work.Wait()
	return err
}
