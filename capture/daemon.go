// Package capture follows a Postgres table and keeps feedback.json equal to it.
//
// A [Daemon] runs three parts together. A [Source] copies the table into a snapshot.Table and then applies each
// transaction to it; when it fails it is run again, with growing pauses. The flush loop writes the table's newest View
// to a store.File: after changes, regularly, on demand and at the end. State and metrics say how both are doing.
package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"capture/internal/postgres"
	"capture/snapshot"
	"capture/store"
)

// Config is what a Daemon needs to know.
type Config struct {
	Database *pgx.ConnConfig
	// Refresh reads Database anew before each attempt, since a password file or a certificate may have changed; nil for
	// never.
	Refresh        func() (*pgx.ConnConfig, error)
	Table          postgres.Name
	Source         string          // auto, logical, notify, poll
	FlushDelay     time.Duration   // from the first unflushed change to the flush
	FlushInterval  time.Duration   // between regular flushes, on the wall clock's multiples of it
	MaxWAL         int64           // bytes that the slot may hold back
	Folders        []Folder        // whose volumes are watched
	VolumeWarn     int             // percent of a volume in use that is worth a warning; 0 for none
	AlertURL       string          // where alerts are posted; "" for nowhere
	AlertAfter     time.Duration   // how long trouble lasts before it is posted
	Verify         Verify          // compares the captured rows with the table; nil for never
	VerifyInterval time.Duration   // between comparisons
	Recall         Recall          // reads what the file holds at the start; nil for never
	Keep           store.Retention // the states of the file that are kept beside it, one each FlushInterval
	PollInterval   time.Duration   // between reads of the whole table, where nothing better is to be had; a minute where zero
	Version        string
	Logger         hclog.Logger
	Registry       prometheus.Registerer // where the daemon's metrics go; nil for nowhere
	LogError       func() error          // why logs can't be written, nil while they can
	CopyRate       int64                 // bytes a second that a copy reads at most; 0 for no limit
	Memory         int64                 // bytes that the process is to use in all; 0 for [cgroup.MemoryLimit]
	Folder         string                // for rows that do not fit into memory, where there is no file; "" for the temporary one

	CopyJobs int // connections that a copy is read over; 0 for as many as cores and the table's size allow

	bounds  bounds                                      // tests shorten them
	prepare func(context.Context, []snapshot.Part) bool // writes ahead what a copy has read, as [store.File.WriteAhead]; nil for nothing
}

// bounds are how long things may take before they are called trouble.
type bounds struct {
	// silence is longer than what a slow link or a busy server makes of a keepalive that was asked for.
	silence time.Duration
	ping    time.Duration // how often one is asked for
	count   time.Duration // how often the rows are counted
	frozen  time.Duration // after it the server drops the slot of a copying capture that says nothing
	part    int64         // bytes of the table that a connection of a copy reads at a time
	draft   int           // bytes of its rows that are written ahead at a time
	segment int           // bytes of the Table's segments, with few of them in a group; zero for the usual
	look    time.Duration // how often it is looked whether a better source works; zero for what suits the reason
}

// orUsual is b, or what holds outside tests.
func (b bounds) orUsual() bounds {
	b.silence = cmp.Or(b.silence, 30*time.Second)
	b.ping = cmp.Or(b.ping, 10*time.Second)
	b.count = cmp.Or(b.count, time.Hour)
	b.part = cmp.Or(b.part, rangeBytes)
	b.draft = cmp.Or(b.draft, draftBytes)
	b.frozen = cmp.Or(b.frozen, 2*time.Minute)
	return b
}

func (b bounds) table() *snapshot.Table {
	if b.segment > 0 {
		return snapshot.NewTestTable(b.segment, 4)
	}
	return snapshot.NewTable()
}

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

// New makes a Daemon that keeps file. Run starts it.
func New(cfg Config, file *store.File) *Daemon {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	cfg.bounds, cfg.prepare = cfg.bounds.orUsual(), file.WriteAhead
	d := &Daemon{cfg: cfg, log: cfg.Logger, file: file}
	d.table = d.cfg.newTable(filepath.Dir(file.Path()), d.damaged)
	d.state = newState(cfg, file)
	d.metrics = newMetrics(cfg.Registry, d)
	d.flusher = newFlusher(d)
	return d
}

// Run follows the table until ctx ends, then flushes once more. It waits for all that it started. It returns nil after
// a clean stop.
func (d *Daemon) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	// The source ends first, so that the last flush writes the last state it left.
	followed := make(chan struct{})
	g.Go(func() error {
		defer close(followed)
		return guarded(d.log, "follow "+d.cfg.Table.String(), func() error { return d.follow(ctx) })
	})
	g.Go(func() error {
		return guarded(d.log, "flush", func() error { return d.flusher.run(ctx, followed) })
	})
	if d.cfg.Keep.Count > 0 {
		g.Go(func() error { return guarded(d.log, "keep generations", func() error { return d.flusher.keep(ctx) }) })
	}
	g.Go(func() error { return guarded(d.log, "watch the memory", func() error { return d.watchMemory(ctx) }) })
	if len(d.cfg.Folders) > 0 {
		g.Go(func() error { return guarded(d.log, "watch the volumes", func() error { return d.watchVolumes(ctx) }) })
	}
	if d.cfg.AlertURL != "" {
		g.Go(func() error { return guarded(d.log, "alert", func() error { return newAlerter(d).run(ctx) }) })
	}
	g.Go(func() error {
		return guarded(d.log, "recall the rows of an earlier run", func() error { return d.recall(ctx) })
	})
	if d.cfg.Verify != nil && d.cfg.VerifyInterval > 0 {
		g.Go(func() error { return guarded(d.log, "verify", func() error { return d.verify(ctx) }) })
	}
	err := g.Wait()
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// Flushed is the answer to a forced flush.
type Flushed struct {
	Rows   int     `json:"rows"`
	Bytes  int64   `json:"bytes"`
	LSN    string  `json:"lsn,omitempty"`
	SHA256 string  `json:"sha256"`
	Path   string  `json:"path"`
	Millis float64 `json:"milliseconds"`
}

// Snapshot returns once feedback.json holds all that was committed before the call. While a copy is under way it waits
// for it; while the database can't be reached it fails at once, and the file stays as it is.
func (d *Daemon) Snapshot(ctx context.Context) (Flushed, error) {
	start := time.Now()
	if err := d.barrier(ctx); err != nil {
		return Flushed{}, fmt.Errorf("snapshot %s: %w", d.cfg.Table, err)
	}
	m, err := d.flusher.force(ctx)
	if err != nil {
		return Flushed{}, err
	}
	return Flushed{
		Rows: m.Rows, Bytes: m.Bytes, LSN: m.LSN, SHA256: m.SHA256, Path: d.file.Path(), Millis: millis(time.Since(start)),
	}, nil
}
