package capture

import (
	"cmp"
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
	"capture/store/retention"
)

// Config configures a [Daemon]. Start with [DefaultConfig] and set at least Database and Table.
type Config struct {
	// Database says where the table is, and as whom to connect.
	Database *pgx.ConnConfig

	// ReloadDatabase, if set, returns Database for the next attempt to connect: a password file or a certificate may
	// have changed. If it fails, the previous configuration stays in use.
	ReloadDatabase func() (*pgx.ConnConfig, error)

	// Table is the table to follow.
	Table postgres.Name

	// Source is how capture learns of changes: logical, notify, poll, or auto for the best of them that works.
	Source string

	// PollInterval is the time between reads of the table by the source poll.
	PollInterval time.Duration

	// MaxWAL is how many bytes of WAL the replication slot may retain before the table is copied again with a new slot.
	// Zero sets no limit.
	MaxWAL int64

	// CopyRate is how many bytes a second a copy reads at most. Zero sets no limit.
	CopyRate int64

	// FlushDelay is the time between a change and the write of the file that includes it.
	FlushDelay time.Duration

	// FlushInterval is the time between regular writes. They come at the wall clock's multiples of it, whether anything
	// has changed or not.
	FlushInterval time.Duration

	// Keep says which earlier states of the file are kept beside it. A regular write adds one. States before a loss of rows are kept
	// in any case.
	Keep retention.Policy

	// Compare, if set, compares the captured rows with the table every VerifyInterval. An interval of zero turns it off.
	Compare        CompareFunc
	VerifyInterval time.Duration

	// LoadPrevious, if set, reads the rows that an earlier run wrote to the file. Readers get them until the first copy
	// if the database is unreachable at the start.
	LoadPrevious func(context.Context) (*snapshot.View, error)

	// MemoryLimit is how many bytes of memory the process may use if [cgroup.MemoryLimit] allows more. Zero sets no
	// limit. Rows that do not fit are spilled to a file.
	MemoryLimit int64

	// SpillDir is where [Export] spills rows. Empty means the system's folder for temporary files. A Daemon spills into
	// the folder of its file.
	SpillDir string

	// WatchedDirs are the folders whose volumes are measured. A warning is due if VolumeWarn percent of one are in use;
	// zero turns warnings off.
	WatchedDirs []WatchedDir
	VolumeWarn  int

	// AlertURL is where alerts are posted. Empty turns them off. A condition is posted if it lasts for AlertAfter.
	AlertURL   string
	AlertAfter time.Duration

	// Version is capture's own version, for Status, alerts and manifests.
	Version string

	// Logger receives the log lines. Nil discards them.
	Logger hclog.Logger

	// LogHealth, if set, returns why log lines cannot be written, or nil.
	LogHealth func() error

	// Registry receives the daemon's metrics. Nil registers none.
	Registry prometheus.Registerer

	// Tests set these; zero stands for the usual value.
	intervals intervals
	timeouts  source.Timeouts
	copying   source.CopyOptions // sizes only
	pageBytes int                // size of the Table's pages, with few of them in a group

	// maxRowBytes is the most bytes that a row may take as JSON; 0 if memory is not limited. New sets it, since the limit of the
	// Go runtime changes later. Tests may set a lower value.
	maxRowBytes int64
}

// WatchedDir is a folder whose volume is measured.
type WatchedDir struct {
	Name  string // as Status and metrics call it
	Path  string
	Bytes func() int64 // size of capture's files in it; nil for the folder of the daemon's file
}

// CompareFunc compares a state with the table in the database. It returns how many rows differ, and some of their keys
// for the log. newestView returns the newest View once that contains everything committed before the call. Rows of more than
// maxRow bytes of JSON may be among those that the View omits; 0 stands for no limit.
type CompareFunc func(ctx context.Context, database *pgx.ConnConfig, maxRow int64, newestView func(context.Context) (*snapshot.View, error)) (rows int64, keys []string, err error)

// DefaultConfig returns the defaults, which are those of `capture run`. Database and Table have none.
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

// Validate returns an error that names a setting with which a Daemon cannot work, or nil.
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

// intervals are waits of the daemon's own parts that tests shorten.
type intervals struct {
	probe       time.Duration // between probes for a better source; zero lets the reason for its absence decide
	volumeCheck time.Duration // between measurements of the volumes
	keptCheck   time.Duration // between looks at the losses that are not acknowledged
	alertCheck  time.Duration // between looks at the conditions that are worth an alert
	alertRetry  time.Duration // before an alert is posted again for the first time; it doubles from there
}

// withDefaults returns i with what holds outside tests for each zero.
func (i intervals) withDefaults() intervals {
	i.volumeCheck = cmp.Or(i.volumeCheck, 15*time.Second)
	i.keptCheck = cmp.Or(i.keptCheck, 5*time.Second)
	i.alertCheck = cmp.Or(i.alertCheck, time.Second)
	i.alertRetry = cmp.Or(i.alertRetry, 5*time.Second)
	return i
}

// env returns what a source of the given kind may use in its next attempt.
func (cfg *Config) env(kind string, progress *source.Progress) *source.Env {
	env := &source.Env{
		Database: cfg.Database, Table: cfg.Table, Logger: cfg.Logger, Timeouts: cfg.timeouts.WithDefaults(),
		Copy: cfg.copying, Progress: progress, MaxRow: cfg.maxRow(), MaxWAL: cfg.MaxWAL, PollInterval: cfg.PollInterval,
		Chosen: cfg.Source == kind,
	}
	env.Copy.Rate = cfg.CopyRate
	return env
}
