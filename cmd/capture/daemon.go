package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"capture/capture"
	"capture/internal/foreign"
	"capture/internal/logfile"
	"capture/internal/postgres"
	"capture/internal/verify"
	"capture/internal/web"
	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
	"capture/store/disk"
)

// service is a daemon and what it needs to run: the HTTP servers, the locked file and the logs.
type service struct {
	daemon      *capture.Daemon
	web         *web.Server
	listener    net.Listener
	profiles    net.Listener // listener for Go's profiles; nil if they are disabled
	file        *store.File
	logs        *logfile.Logs
	log         hclog.Logger
	memoryLimit int64 // value of --memory in bytes; 0 means auto
}

// serviceOptions are the settings of a service.
type serviceOptions struct {
	daemon      capture.Config // without Version, Logger, LogHealth, Registry and Compare, which openService sets
	web         web.Config     // without View, Status, Flush, IsOwn, Path, Version, Logger and Registry, which openService sets
	output      string         // path of feedback.json
	logs        logConfig
	stderr      io.Writer // receives the log lines in addition to the log files
	listen      string    // HOST:PORT of the HTTP server
	anyPort     bool      // whether to listen on a free port if the port in listen is in use
	debugListen string    // IP:PORT of the server for Go's profiles; "" disables it
}

// openService takes the lock, opens the logs and listens. [service.run] then runs the service.
func openService(opts serviceOptions) (_ *service, err error) {
	s := &service{memoryLimit: opts.daemon.MemoryLimit}
	if opts.debugListen == "" {
		runtime.MemProfileRate = 0 // Go samples allocations because net/http/pprof is linked in, but nobody can request a profile
	}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	version, _ := buildInfo()
	// The lock comes first: a second daemon must not touch the logs of the first.
	s.file, err = store.Open(opts.output, store.Owner{PID: os.Getpid(), Host: hostname(), Version: version, Started: time.Now()})
	if err != nil {
		return nil, err
	}
	if s.logs, err = opts.logs.openLogs(opts.stderr); err != nil {
		return nil, err
	}
	s.log = s.logs.Logger()
	if folder := filepath.Dir(s.file.Path()); disk.OthersMayWrite(folder) {
		s.log.Warn("every user of this machine may put files into the output's folder", "folder", folder, "hint", "chmod o-w "+foreign.ShellPath(folder))
	}

	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	cfg := opts.daemon
	cfg.Version, cfg.Logger, cfg.LogHealth, cfg.Registry = version, s.log, s.logs.Err, registry
	cfg.Compare = compareWithTable(cfg.Table)
	if s.daemon, err = capture.New(cfg, s.file); err != nil {
		return nil, err
	}
	page := opts.web
	page.View, page.Status, page.Flush = s.daemon.View, s.daemon.Status, s.daemon.Snapshot
	page.IsOwn = s.file.Published
	page.Path, page.Version, page.Logger, page.Registry = opts.output, version, s.log.Named("web"), registry
	if s.web, err = web.New(page); err != nil {
		return nil, err
	}
	// Listen last: a wrong setting is then reported even if the port is in use as well.
	if err := s.listen(opts); err != nil {
		return nil, err
	}
	return s, nil
}

// listen opens the ports, and writes the HTTP address into the lock file, where other commands find it.
func (s *service) listen(opts serviceOptions) (err error) {
	if s.listener, err = listen("--listen (CAPTURE_LISTEN)", opts.listen, opts.anyPort); err != nil {
		return err
	}
	if opts.debugListen != "" {
		if s.profiles, err = listen("--debug-listen (CAPTURE_DEBUG_LISTEN)", opts.debugListen, false); err != nil {
			return err
		}
		s.log.Info("serving profiles", "url", "http://"+s.profiles.Addr().String()+"/debug/pprof/")
	}
	if err := s.file.SetListen(s.listener.Addr().String()); err != nil {
		s.log.Warn("cannot write the address into the lock file; other commands find this daemon by --listen only", "error", err)
	}
	return nil
}

// listen listens on address. If the port is in use and anyPort is set, it listens on a free port instead. Its
// errors contain flag, which names the flag and the variable that can set the address.
func listen(flag, address string, anyPort bool) (net.Listener, error) {
	host, _, _ := net.SplitHostPort(address)
	network := "tcp"
	if ip := net.ParseIP(host); ip != nil && ip.To4() != nil {
		network = "tcp4" // for 0.0.0.0, "tcp" listens on [::], but many containers have no IPv6
	}
	l, err := net.Listen(network, address)
	if errors.Is(err, syscall.EADDRINUSE) && anyPort {
		l, err = net.Listen(network, net.JoinHostPort(host, "0"))
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: the port is in use; stop what uses it, or set another with %s", address, flag)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w; set an address of this machine with %s", address, err, flag)
	}
	return l, nil
}

// compareWithTable returns the function for the daemon's regular comparison. The function compares the rows in memory with
// the table, as `capture verify` compares the file with the table.
func compareWithTable(table postgres.Name) capture.CompareFunc {
	return func(ctx context.Context, database *pgx.ConnConfig, maxRow int64, newestView func(context.Context) (*snapshot.View, error)) (int64, []string, error) {
		var view *snapshot.View
		d, err := verify.Compare(ctx, verify.Comparison{
			Database: database, Table: table, Live: true, MaxRow: maxRow,
			State: func(ctx context.Context, _ *postgres.Table) (_ iter.Seq2[snapshot.Row, error], err error) {
				if view, err = newestView(ctx); err != nil {
					return nil, err
				}
				return view.From(nil), nil
			},
			Omitted: func(key rowjson.Key) bool { return view.IsOmitted(key) },
		})
		var keys []string
		for _, sample := range []verify.RowSample{d.Missing, d.Extra, d.Different} {
			for _, row := range sample.First {
				keys = append(keys, row.Key)
			}
		}
		return d.Missing.Rows + d.Extra.Rows + d.Different.Rows, keys, err
	}
}

// run follows the table and serves HTTP until ctx ends or an error occurs. It logs the error that it returns.
func (s *service) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return catchPanic(func() error { return tuneHeap(ctx, s.memoryLimit) }) })
	group.Go(func() error { return catchPanic(func() error { return s.daemon.Run(ctx) }) })
	group.Go(func() error { return catchPanic(func() error { return s.web.Run(ctx, s.listener) }) })
	if s.profiles != nil {
		group.Go(func() error { return catchPanic(func() error { return web.RunDebug(ctx, s.profiles) }) })
	}
	s.handleSignals(ctx, group)
	version, _ := buildInfo()
	s.log.Info("started", "version", version, "file", s.file.Path(), "page", "http://"+s.address()+"/")
	if err := group.Wait(); err != nil {
		s.log.Error("stopping after an error", "error", err)
		return reportedError{err}
	}
	file := s.daemon.Status().File
	s.log.Info("stopped", "file", file.Path, "rows", file.Rows, "up_to_date", file.UpToDate)
	return nil
}

// handleSignals starts goroutines that handle signals until ctx ends: SIGUSR1 forces a flush, and SIGHUP reopens the logs.
func (s *service) handleSignals(ctx context.Context, group *errgroup.Group) {
	flush := make(chan os.Signal, 1) // the buffer holds a signal that arrives during a flush
	reopen := make(chan os.Signal, 1)
	signal.Notify(flush, syscall.SIGUSR1)
	signal.Notify(reopen, syscall.SIGHUP)
	loop := func(signals chan os.Signal, do func()) func() error {
		return func() error {
			defer signal.Stop(signals)
			for {
				select {
				case <-ctx.Done():
					return nil
				case <-signals:
					if err := catchPanic(func() error { do(); return nil }); err != nil {
						return err
					}
				}
			}
		}
	}
	group.Go(loop(flush, func() {
		flushed, err := s.daemon.Snapshot(ctx)
		switch {
		case ctx.Err() != nil: // the daemon is stopping, and flushes once more anyway
		case err != nil:
			s.log.Error("forced flush failed", "by", "SIGUSR1", "error", err)
		default:
			s.log.Info("forced flush", "by", "SIGUSR1", "rows", flushed.Rows, "bytes", flushed.Bytes, "lsn", flushed.LSN)
		}
	}))
	group.Go(loop(reopen, func() {
		s.logs.Reopen()
		s.log.Info("logs reopened", "by", "SIGHUP")
	}))
}

// address returns the HOST:PORT at which a client on this machine reaches the HTTP server.
func (s *service) address() string { return dialAddress(s.listener.Addr().String(), "") }

// close releases what openService has opened. [service.run] must have returned.
func (s *service) close() {
	if s.listener != nil {
		s.listener.Close()
	}
	if s.profiles != nil {
		s.profiles.Close()
	}
	if s.file != nil {
		if err := s.file.Close(); err != nil && s.log != nil {
			s.log.Error("cannot release the lock", "error", err)
		}
	}
	if s.logs != nil {
		if err := s.logs.Close(); err != nil {
			fmt.Fprintln(os.Stderr, "capture: close the logs:", errorText(err, nil))
		}
	}
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return "unknown"
	}
	return name
}
