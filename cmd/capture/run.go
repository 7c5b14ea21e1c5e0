package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sync/errgroup"
)

type runCmd struct {
	databaseConfig
	outputConfig
	followConfig
	memoryConfig
	keepConfig
	watchConfig
	listenConfig
	tokenConfig
	pageConfig
	logConfig
	debugConfig
}

func (runCmd) Help() string {
	return "Copies the table once, follows it, and keeps feedback.json equal to it, for as long as it runs: where the " +
		"database is away it goes on serving the last state and tries again. SIGTERM or SIGINT stop it after a last " +
		"write of the file, SIGUSR1 writes the file now, SIGHUP reopens the logs."
}

func (runCmd) Examples() string {
	return `
	DATABASE_URL=postgres://capture@db/app PGPASSFILE=/run/secrets/pgpass capture run
	capture run --database-url postgres://capture@db/app --table public.votes --output /srv/feedback.json`
}

func (c runCmd) Run(ctx context.Context, std streams) error {
	database, err := c.connection()
	if err != nil {
		return err
	}
	path, err := c.file()
	if err != nil {
		return err
	}
	s, err := openService(serviceConfig{
		database: database,
		refresh:  c.connection,
		table:    c.Table,
		path:     path,
		follow:   c.followConfig,
		memory:   int64(c.Memory),
		watch:    c.watchConfig,
		keep:     c.keepConfig,
		page:     c.pageConfig,
		listen:   string(c.Listen),
		debug:    string(c.DebugListen),
		token:    string(c.TokenFile),
		logs:     c.logConfig,
		stderr:   std.err,
	})
	if err != nil {
		return err
	}
	defer s.close()
	if c.passwordShown() {
		s.log.Warn(passwordWarning)
	}
	return s.run(ctx)
}

// onSignals does what SIGUSR1 and SIGHUP ask for until ctx ends.
func (s *service) onSignals(ctx context.Context, group *errgroup.Group) {
	flush := make(chan os.Signal, 1) // holds one: a flush that is asked for during another is not lost
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
					if err := guarded(func() error { do(); return nil }); err != nil {
						return err
					}
				}
			}
		}
	}
	group.Go(loop(flush, func() {
		flushed, err := s.daemon.Snapshot(ctx)
		switch {
		case ctx.Err() != nil: // the last flush comes with the stop
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

// listen binds an HTTP server's address, which flag gives; where its port is taken, a free one if that will do.
func listen(flag, address string, orAnyPort bool) (net.Listener, error) {
	host, _, _ := net.SplitHostPort(address)
	network := "tcp"
	if ip := net.ParseIP(host); ip != nil && ip.To4() != nil {
		network = "tcp4" // "tcp" makes [::] of 0.0.0.0, which says to others that IPv6 will do; containers often have none
	}
	l, err := net.Listen(network, address)
	if errors.Is(err, syscall.EADDRINUSE) && orAnyPort {
		l, err = net.Listen(network, net.JoinHostPort(host, "0"))
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return nil, fmt.Errorf("listen on %s: the port is in use; stop what uses it, or give another one by %s", address, flag)
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w; give an address of this machine by %s", address, err, flag)
	}
	return l, nil
}
