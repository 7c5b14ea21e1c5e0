// Package capture follows a Postgres table and keeps feedback.json equal to it.
//
// A [Daemon] runs three parts together. A [Source] copies the table into a snapshot.Table and then applies each
// transaction to it; when it fails it is run again, with growing pauses. The flush loop writes the table's newest View
// to a store.File: after changes, regularly, on demand and at the end. State and metrics say how both are doing.
package capture

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"capture/internal/guard"
	"capture/snapshot"
	"capture/store"
)

// Daemon owns a source, a table, a file and the flush timing.
type Daemon struct {
	cfg     Config
	log     hclog.Logger
	table   *snapshot.Table
	file    *store.File
	flusher *flusher
	state   *state
	metrics *metrics

	current  atomic.Pointer[context.CancelCauseFunc] // ends the source that runs
	recalled atomic.Pointer[snapshot.View]           // of an earlier run
}

// New returns a Daemon that keeps file equal to the table. Run starts it.
func New(cfg Config, file *store.File) (*Daemon, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	cfg.intervals = cfg.intervals.withDefaults()
	cfg.timeouts = cfg.timeouts.WithDefaults()
	d := &Daemon{cfg: cfg, log: cfg.Logger, file: file}
	d.table = d.cfg.newTable(filepath.Dir(file.Path()), d.damaged)
	d.state = newState(cfg, file)
	d.metrics = newMetrics()
	if cfg.Registry != nil {
		d.metrics.register(cfg.Registry, d.report)
	}
	d.flusher = newFlusher(d)
	return d, nil
}

// Run follows the table until ctx ends, then flushes once more. It waits for all that it started. It returns nil after
// a clean stop.
func (d *Daemon) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	// The source ends first, so that the last flush writes the last state it left.
	followed := make(chan struct{})
	g.Go(func() error {
		defer close(followed)
		return guard.Run(d.log, "follow "+d.cfg.Table.String(), func() error { return d.follow(ctx) })
	})
	g.Go(func() error {
		return guard.Run(d.log, "flush", func() error { return d.flusher.run(ctx, followed) })
	})
	if d.cfg.Generations.Count > 0 {
		g.Go(func() error { return guard.Run(d.log, "keep generations", func() error { return d.flusher.keep(ctx) }) })
	}
	g.Go(func() error { return guard.Run(d.log, "watch the memory", func() error { return d.watchMemory(ctx) }) })
	if len(d.cfg.WatchedDirs) > 0 {
		g.Go(func() error {
			return guard.Run(d.log, "watch the volumes", func() error { return newVolumeMonitor(&d.cfg, d.state).run(ctx) })
		})
	}
	if d.cfg.AlertURL != "" {
		g.Go(func() error {
			return guard.Run(d.log, "alert", func() error { return newAlerter(&d.cfg, d.Status).run(ctx) })
		})
	}
	g.Go(func() error {
		return guard.Run(d.log, "recall the rows of an earlier run", func() error { return d.recall(ctx) })
	})
	if d.cfg.Compare != nil && d.cfg.VerifyInterval > 0 {
		g.Go(func() error { return guard.Run(d.log, "verify", func() error { return d.verify(ctx) }) })
	}
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// SnapshotResult describes the file that [Daemon.Snapshot] has written.
type SnapshotResult struct {
	Rows   int     `json:"rows"`
	Bytes  int64   `json:"bytes"`
	LSN    string  `json:"lsn,omitempty"`
	SHA256 string  `json:"sha256"`
	Path   string  `json:"path"`
	Millis float64 `json:"milliseconds"`
}

// Snapshot returns once feedback.json holds all that was committed before the call. While a copy is under way it waits
// for it; while the database can't be reached it fails at once, and the file stays as it is.
func (d *Daemon) Snapshot(ctx context.Context) (SnapshotResult, error) {
	start := time.Now()
	if err := d.barrier(ctx); err != nil {
		return SnapshotResult{}, fmt.Errorf("snapshot %s: %w", d.cfg.Table, err)
	}
	m, err := d.flusher.force(ctx)
	if err != nil {
		return SnapshotResult{}, err
	}
	return SnapshotResult{
		Rows: m.Rows, Bytes: m.Bytes, LSN: m.LSN, SHA256: m.SHA256, Path: d.file.Path(), Millis: millis(time.Since(start)),
	}, nil
}
