package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"capture/capture"
	"capture/internal/statefile"
	"capture/internal/web"
	"capture/snapshot"
	"capture/store"
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
	return "Copies the table, follows its changes and keeps feedback.json equal to it. While the database is unreachable, " +
		"capture serves the last state and reconnects. SIGTERM and SIGINT stop it after a last write of the file. SIGUSR1 " +
		"writes the file now. SIGHUP reopens the logs."
}

func (runCmd) Examples() string {
	return `
	DATABASE_URL=postgres://capture@db/app PGPASSFILE=/run/secrets/pgpass capture run
	capture run --database-url postgres://capture@db/app --table public.votes --output /srv/feedback.json`
}

func (c runCmd) Run(ctx context.Context, std streams) error {
	database, err := c.connConfig()
	if err != nil {
		return err
	}
	path, err := c.filePath()
	if err != nil {
		return err
	}
	s, err := openService(serviceOptions{
		daemon:      c.daemonConfig(database, path),
		web:         web.Config{TokenFile: string(c.TokenFile), Title: c.Title, TimeColumn: c.TimeColumn, TagsColumn: c.TagsColumn},
		output:      path,
		logs:        c.logConfig,
		stderr:      std.err,
		listen:      string(c.Listen),
		debugListen: string(c.DebugListen),
	})
	if err != nil {
		return err
	}
	defer s.close()
	if c.passwordOnCommandLine() {
		s.log.Warn(passwordWarning)
	}
	return s.run(ctx)
}

// daemonConfig returns the daemon's configuration, as far as flags set it.
func (c runCmd) daemonConfig(database *pgx.ConnConfig, output string) capture.Config {
	return capture.Config{
		Database:       database,
		ReloadDatabase: c.connConfig,
		Table:          c.Table.Name,
		Source:         string(c.Source),
		PollInterval:   time.Duration(c.PollInterval),
		MaxWAL:         int64(c.MaxWAL),
		CopyRate:       int64(c.CopyRate),
		FlushDelay:     time.Duration(c.FlushDelay),
		FlushInterval:  time.Duration(c.FlushInterval),
		Generations:    store.Retention{Count: int(c.Keep), Days: int(c.KeepDays)},
		VerifyInterval: time.Duration(c.VerifyInterval),
		LoadPrevious:   func(ctx context.Context) (*snapshot.View, error) { return statefile.LoadView(ctx, output) },
		MemoryLimit:    int64(c.Memory),
		WatchedDirs:    watchedDirs(output, c.logFiles),
		VolumeWarn:     int(c.VolumeWarn),
		AlertURL:       string(c.AlertURL),
		AlertAfter:     time.Duration(c.AlertAfter),
	}
}

// onSignals flushes on SIGUSR1 and reopens the logs on SIGHUP, until ctx ends.
func (s *service) onSignals(ctx context.Context, group *errgroup.Group) {
	flush := make(chan os.Signal, 1) // keeps one that comes during a flush
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
		case ctx.Err() != nil: // stopping flushes, too
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

// listen listens on the address that flag gives. With anyPort it takes a free port if the address's is in use.
func listen(flag, address string, anyPort bool) (net.Listener, error) {
	host, _, _ := net.SplitHostPort(address)
	network := "tcp"
	if ip := net.ParseIP(host); ip != nil && ip.To4() != nil {
		network = "tcp4" // "tcp" listens on [::] for 0.0.0.0; many containers have no IPv6
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
