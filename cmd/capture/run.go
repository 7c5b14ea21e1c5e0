package main

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/capture"
	"capture/internal/statefile"
	"capture/internal/web"
	"capture/snapshot"
	"capture/store/manifest"
	"capture/store/retention"
)

type runCmd struct {
	databaseConfig
	outputConfig
	followConfig
	memoryConfig
	keepConfig
	copyConfig
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
	daemon := c.daemonConfig(database, path)
	if daemon.CopyTo, err = c.location(); err != nil {
		return err
	}
	s, err := openService(serviceOptions{
		daemon:      daemon,
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

// daemonConfig returns the part of the daemon's configuration that flags set.
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
		Keep:           retention.Policy(c.Keep),
		VerifyInterval: time.Duration(c.VerifyInterval),
		LoadPrevious: func(ctx context.Context) (*snapshot.View, manifest.Manifest, error) {
			return statefile.LoadView(ctx, output)
		},
		MemoryLimit:  int64(c.Memory),
		WatchedDirs:  watchedDirs(output, c.logFiles),
		VolumeWarn:   int(c.VolumeWarn),
		AlertURL:     string(c.AlertURL),
		AlertAfter:   time.Duration(c.AlertAfter),
		HeartbeatURL: string(c.HeartbeatURL),
	}
}
