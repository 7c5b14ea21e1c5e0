package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sync/errgroup"

	"capture/internal/guard"
	"capture/snapshot"
	"capture/store"
	"capture/store/manifest"
)

// Daemon keeps a file equal to a table.
type Daemon struct {
	cfg        Config
	table      *snapshot.Table
	file       *store.File
	supervisor *supervisor
	flusher    *flusher
	previous   *previousRows
	volumes    *volumeMonitor
	keeper     *keeper
	uploader   *uploader // nil without CopyTo
	conditions *conditions
	metrics    *metrics
	status     *statusReporter
}

// New returns a Daemon that keeps file equal to the table that cfg names. Run starts it.
func New(cfg Config, file *store.File) (*Daemon, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	cfg.intervals, cfg.timeouts = cfg.intervals.withDefaults(), cfg.timeouts.WithDefaults()
	cfg.maxRowBytes = cfg.maxRow()
	d := &Daemon{cfg: cfg, file: file, conditions: newConditions(), metrics: newMetrics()}
	d.table = cfg.newTable(filepath.Dir(file.Path()), file.IsOnDisk(), d.spilledRowsLost)
	d.supervisor = newSupervisor(&d.cfg, d.table, file)
	tracker := newFileTracker(file)
	// current returns the newest View for the keeper and the uploader. Before the first read of the table, it
	// returns nil, because the newest View then contains the rows of the file. The table may have lost some of these rows, and
	// its database may have another name now.
	current := func() *snapshot.View {
		if d.supervisor.report().LastRead.Ended.IsZero() {
			return nil
		}
		return d.table.View()
	}
	d.keeper = newKeeper(&d.cfg, file, current, d.conditions, d.metrics)
	if cfg.CopyTo != nil {
		d.uploader = newUploader(&d.cfg, file, current, d.newestView, d.metrics)
		d.keeper.remote = d.uploader.remoteLosses
		d.keeper.lossOver = func() { wake(d.uploader.losses) }
	}
	d.volumes = newVolumeMonitor(&d.cfg, file, d.conditions)
	d.previous = &previousRows{load: cfg.LoadPrevious, file: file, table: d.table, waitState: d.supervisor.waitState, log: cfg.Logger}
	if cfg.CopyTo != nil {
		d.previous.fetcher = &fetcher{newCopyFinder(cfg.CopyTo, cfg.Logger), cfg.Table, file, tracker, d.conditions, cfg.Logger}
	}
	d.flusher = newFlusher(&d.cfg, d.table, file, tracker, d.previous, d.keeper, d.uploader, d.volumes, d.metrics)
	d.status = &statusReporter{
		base: newBaseStatus(&d.cfg), idle: d.cfg.timeouts.Idle, logHealth: cfg.LogHealth, table: d.table, shown: d.View,
		following: d.supervisor.report, file: tracker, volumes: d.volumes.lastUsages, kept: d.keeper.status, conditions: d.conditions,
	}
	if d.uploader != nil {
		d.status.copies = d.uploader.status
	}
	if cfg.Registry != nil {
		d.metrics.register(cfg.Registry, d.status.report)
	}
	return d, nil
}

// withDefaults returns i with the default in place of each zero. Only i.probe may stay zero.
func (i intervals) withDefaults() intervals {
	i.setupCheck = cmp.Or(i.setupCheck, setupCheckInterval)
	i.volumeCheck = cmp.Or(i.volumeCheck, volumeCheckInterval)
	i.keptCheck = cmp.Or(i.keptCheck, keptCheckInterval)
	i.alertCheck = cmp.Or(i.alertCheck, alertCheckInterval)
	i.uploadCheck = cmp.Or(i.uploadCheck, uploadCheckInterval)
	i.uploadDelay = cmp.Or(i.uploadDelay, uploadDelay)
	i.heartbeat = cmp.Or(i.heartbeat, heartbeatInterval)
	i.steady = cmp.Or(i.steady, steadyInterval)
	i.alertRetry = cmp.Or(i.alertRetry, firstAlertRetry)
	return i
}

// Run follows the table until ctx ends, then writes the file a last time. It waits for every goroutine that it starts
// (invariant 5, docs/design.md), and returns nil after a clean stop.
func (d *Daemon) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	run := func(task string, f func(context.Context) error) {
		g.Go(func() error {
			err := guard.Run(d.cfg.Logger, task, func() error { return f(ctx) })
			// The group returns only its first error. A context.Canceled must not hide the error of the last flush.
			if ctx.Err() != nil && errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		})
	}
	// The source ends before the last write, so that this write contains the last state.
	sourceEnded := make(chan struct{})
	run("follow "+d.cfg.Table.String(), func(ctx context.Context) error {
		defer close(sourceEnded)
		return d.supervisor.run(ctx)
	})
	run("flush", func(ctx context.Context) error { return d.flusher.run(ctx, sourceEnded) })
	run("keep states", d.keeper.run)
	run("watch the file", d.keeper.watchFile)
	run("monitor memory", (&memoryMonitor{table: d.table, conditions: d.conditions, log: d.cfg.Logger}).run)
	run("load the previous run's rows", d.previous.run)
	if d.uploader != nil {
		run("copy off the machine", d.uploader.run)
	}
	if len(d.cfg.WatchedDirs) > 0 {
		run("monitor volumes", d.volumes.run)
	}
	if d.cfg.AlertURL != "" {
		run("alert", newAlerter(&d.cfg, d.Status, d.conditions).run)
	}
	if d.cfg.HeartbeatURL != "" {
		run("heartbeat", newHeartbeat(&d.cfg, d.Status, d.conditions).run)
	}
	if d.cfg.Compare != nil && d.cfg.VerifyInterval > 0 {
		run("verify", (&verifier{
			compare: d.cfg.Compare, interval: d.cfg.VerifyInterval, database: d.supervisor.database.reload, maxRow: d.cfg.maxRowBytes,
			newestView: d.newestView, resync: d.supervisor.resync, conditions: d.conditions, metrics: d.metrics, log: d.cfg.Logger,
		}).run)
	}
	return g.Wait()
}

// SnapshotResult describes the file that [Daemon.Snapshot] has written.
type SnapshotResult struct {
	Rows   int     `json:"rows"`
	Bytes  int64   `json:"bytes"`
	LSN    string  `json:"lsn,omitempty"`
	SHA256 string  `json:"sha256"`
	Path   string  `json:"path"`
	Millis float64 `json:"milliseconds"`

	Omitted *manifest.Omitted `json:"omitted,omitempty"` // rows of the table that are not in the file
}

// Snapshot returns once feedback.json contains everything that was committed before the call. If a copy of the table is
// running, Snapshot waits until the copy is complete. If the database is unreachable, Snapshot fails at once, and the file does
// not change.
func (d *Daemon) Snapshot(ctx context.Context) (SnapshotResult, error) {
	start := time.Now()
	if err := d.supervisor.barrier(ctx); err != nil {
		return SnapshotResult{}, fmt.Errorf("snapshot %s: %w", d.cfg.Table, err)
	}
	m, err := d.flusher.requestFlush(ctx)
	if err != nil {
		return SnapshotResult{}, err
	}
	return SnapshotResult{
		Rows: m.Rows, Bytes: m.Bytes, LSN: m.LSN, SHA256: m.SHA256, Path: d.file.Path(), Millis: millis(time.Since(start)),
		Omitted: m.Omitted,
	}, nil
}

// View returns the newest committed state. Until the first copy is complete, it returns the previous run's rows, or nil if they
// are not loaded. Views advance in commit order: invariant 2 (docs/design.md).
func (d *Daemon) View() *snapshot.View {
	if v := d.table.View(); v != nil {
		return v
	}
	return d.previous.view()
}

// newestView waits until everything committed before the call is in a View, and returns the newest View.
func (d *Daemon) newestView(ctx context.Context) (*snapshot.View, error) {
	if err := d.supervisor.barrier(ctx); err != nil {
		return nil, err
	}
	return d.table.View(), nil
}

// Status returns the state of the daemon.
func (d *Daemon) Status() Status {
	st, _ := d.status.report()
	return st
}

// spilledRowsLost requests a new copy of the table, because spilled rows cannot be read back.
func (d *Daemon) spilledRowsLost(err error) {
	d.cfg.Logger.Error("spilled rows are lost; copying the table again", "error", err)
	d.supervisor.resync(err.Error())
}
