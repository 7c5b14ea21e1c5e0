package capture

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"capture/capture/source"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/store/manifest"
	"capture/store/remote"
	"capture/store/retention"
)

// Config configures a [Daemon]. Start with [DefaultConfig] and set at least Database and Table.
type Config struct {
	// Database is the configuration of the connections to the database.
	Database *pgx.ConnConfig

	// ReloadDatabase, if set, returns the present value of Database. It is called before each attempt to follow the table and
	// before each comparison, since a password file or a certificate may have changed. If it fails, the previous configuration
	// stays in use.
	ReloadDatabase func() (*pgx.ConnConfig, error)

	// Table is the table to follow.
	Table postgres.Name

	// Source is the way to follow the table: logical, notify, poll, or auto for the best of them that works.
	Source string

	// PollInterval is the time between two reads of the table by the poll source.
	PollInterval time.Duration

	// MaxWAL is the number of bytes of WAL that the replication slot may retain. If the slot retains more, capture drops the
	// slot and starts over with a new one. Zero sets no limit.
	MaxWAL int64

	// CopyRate is the largest number of bytes per second that a copy reads. Zero sets no limit.
	CopyRate int64

	// FlushDelay is the time for which changes are collected before they are written to the file.
	FlushDelay time.Duration

	// FlushInterval is the time between regular writes. A regular write happens when the wall clock reaches a multiple of
	// FlushInterval, even if nothing has changed.
	FlushInterval time.Duration

	// Keep determines which earlier states of the file are kept next to it. Each regular write adds a state. A write that
	// loses rows or values first adds the state before the loss, whatever Keep says. Package retention says how long each state
	// stays.
	Keep retention.Policy

	// CopyTo is the location of the copies off the machine, or nil if there are none. Keep also determines which copies are
	// kept.
	CopyTo *remote.Location

	// Compare, if set, compares the captured rows with the table every VerifyInterval. A VerifyInterval of zero turns this off.
	Compare        CompareFunc
	VerifyInterval time.Duration

	// LoadPrevious, if set, reads the rows that an earlier run wrote to the file, and the manifest that describes them. If the
	// database is unreachable at the start, readers get these rows until the first copy is complete.
	LoadPrevious func(context.Context) (*snapshot.View, manifest.Manifest, error)

	// MemoryLimit is the number of bytes of memory that the process may use. The limit of [cgroup.MemoryLimit] applies as well,
	// even if MemoryLimit is zero. Rows that do not fit are spilled to a file.
	MemoryLimit int64

	// SpillDir is the folder into which [Export] spills rows. Empty means the system's folder for temporary files. A Daemon
	// spills into the folder of its file.
	SpillDir string

	// WatchedDirs are the folders whose volumes are measured. A warning begins when VolumeWarn percent of a volume are in use.
	// A VolumeWarn of zero turns warnings off.
	WatchedDirs []WatchedDir
	VolumeWarn  int

	// AlertURL is the URL to which alerts are posted. Empty turns alerts off. A condition is posted once it has lasted for
	// AlertAfter.
	AlertURL   string
	AlertAfter time.Duration

	// HeartbeatURL is requested at most once a minute while the daemon is ready and the check of its copies is OK. Empty turns
	// heartbeats off.
	HeartbeatURL string

	// Version is capture's own version, for Status, alerts and manifests.
	Version string

	// Logger receives the log lines. Nil discards them.
	Logger hclog.Logger

	// LogHealth, if set, returns the error that prevents log lines from being written, or nil.
	LogHealth func() error

	// Registry receives the daemon's metrics. Nil registers none.
	Registry prometheus.Registerer

	// Only tests set these fields. A zero stands for the default.
	intervals intervals
	timeouts  source.Timeouts
	copying   source.CopyOptions // options of a copy; CopyRate replaces their Rate
	retry     time.Duration      // longest pause between attempts to follow the table
	pageBytes int                // size of the Table's pages in bytes; if it is set, each group of pages is small, too

	// maxRowBytes is the size limit of a row as JSON, in bytes, or 0 if memory is not limited. New computes it from the
	// memory limit of the process, which includes the limit of the Go runtime. New stores the result, because the limit of
	// the Go runtime changes later. Tests may set a lower value.
	maxRowBytes int64
}

// WatchedDir is a folder whose volume is measured.
type WatchedDir struct {
	Name  string // name in Status and metrics
	Path  string
	Bytes func() int64 // returns the size of capture's files in the folder; may be nil for the folder of the daemon's file
}

// CompareFunc compares a View with the table in the database. It returns the number of rows that differ, and some of their keys
// for the log. newestView waits until everything committed before its call is in a View, and returns that View.
// The View may omit rows of more than maxRow bytes of JSON. A maxRow of 0 stands for no limit.
type CompareFunc func(ctx context.Context, database *pgx.ConnConfig, maxRow int64, newestView func(context.Context) (*snapshot.View, error)) (rows int64, keys []string, err error)

// DefaultConfig returns the defaults, which are also those of `capture run`. Database and Table have no default.
func DefaultConfig() Config {
	return Config{
		Source:         "auto",
		PollInterval:   time.Minute,
		MaxWAL:         1 << 30,
		FlushDelay:     100 * time.Millisecond,
		FlushInterval:  time.Hour,
		VerifyInterval: 24 * time.Hour,
		Keep:           retention.Default,
		VolumeWarn:     80,
		AlertAfter:     time.Minute,
	}
}

// sourceKinds are the kinds of source, best first.
var sourceKinds = []string{"logical", "notify", "poll"}

// Validate returns an error that names an invalid setting, or nil.
func (cfg *Config) Validate() error {
	if problem := cfg.invalidSetting(); problem != "" {
		return fmt.Errorf("invalid configuration: %s", problem)
	}
	return nil
}

func (cfg *Config) invalidSetting() string {
	switch {
	case cfg.Database == nil:
		return "Database is not set"
	case cfg.Table.Table == "":
		return "Table is not set"
	case cfg.Source != "auto" && !slices.Contains(sourceKinds, cfg.Source):
		return fmt.Sprintf("Source is %q: use auto or one of %s", cfg.Source, strings.Join(sourceKinds, ", "))
	case cfg.PollInterval <= 0:
		return fmt.Sprintf("PollInterval is %s: it must be positive", cfg.PollInterval)
	case cfg.FlushInterval <= 0:
		return fmt.Sprintf("FlushInterval is %s: it must be positive", cfg.FlushInterval)
	case cfg.VolumeWarn < 0 || cfg.VolumeWarn > 100:
		return fmt.Sprintf("VolumeWarn is %d: it must be a percentage", cfg.VolumeWarn)
	}
	for name, n := range map[string]int64{
		"MaxWAL": cfg.MaxWAL, "CopyRate": cfg.CopyRate, "MemoryLimit": cfg.MemoryLimit, "FlushDelay": int64(cfg.FlushDelay),
		"VerifyInterval": int64(cfg.VerifyInterval), "AlertAfter": int64(cfg.AlertAfter),
	} {
		if n < 0 {
			return name + " is negative"
		}
	}
	return ""
}

// env returns the Env for the next attempt of a source of the given kind.
func (cfg *Config) env(kind string, progress *source.Progress) *source.Env {
	env := &source.Env{
		Database: cfg.Database, Table: cfg.Table, Logger: cfg.Logger, Timeouts: cfg.timeouts.WithDefaults(),
		Copy: cfg.copying, Progress: progress, MaxRow: cfg.maxRow(), MaxWAL: cfg.MaxWAL, PollInterval: cfg.PollInterval,
		Chosen: cfg.Source == kind,
	}
	env.Copy.Rate = cfg.CopyRate
	return env
}

// intervals are the intervals of the daemon's parts. Only tests set them. The defaults are constants in the files of the parts.
type intervals struct {
	probe       time.Duration // time between probes for a better source; if zero, the time depends on why the better source is unavailable
	setupCheck  time.Duration // time between checks for a publication and triggers that `capture setup` may have created
	volumeCheck time.Duration // time between measurements of the volumes
	keptCheck   time.Duration // time between checks whether losses are still open, and whether the file is in place
	alertCheck  time.Duration // time between checks for conditions that are worth an alert
	uploadCheck time.Duration // time between checks whether an upload is due
	uploadDelay time.Duration // time from a change to its upload
	heartbeat   time.Duration // time between heartbeats
	steady      time.Duration // time for which the table must be followed without a break before the condition "following" ends
	alertRetry  time.Duration // pause before the first retry of an alert; the pauses double up to longestAlertRetry
}
