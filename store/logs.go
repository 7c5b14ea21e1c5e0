package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"
)

// LogConfig says where logs go.
type LogConfig struct {
	Usage string // path of usage.log; "" or /dev/null for none
	Error string // path of error.log; "" or /dev/null for none

	MaxSizeMB  int  // a log that would grow beyond is set aside, with the time in its name; at least 1
	MaxBackups int  // as many are kept; 0 keeps all
	MaxAgeDays int  // older ones are removed; 0 keeps all
	Compress   bool // those set aside, with gzip

	Level    hclog.Level // of usage.log and stderr; NoLevel is Info
	Stderr   io.Writer
	Terminal bool   // Stderr is read by a person: text instead of JSON
	Name     string // of the logger
}

// Logs are usage.log, error.log and stderr, behind one logger. Each has a goroutine of its own that writes, so that
// nothing waits for a slow or failing disk: lines wait instead, and beyond some thousand of them new ones are dropped.
type Logs struct {
	logger hclog.InterceptLogger
	stderr *queue
	files  []*queue
}

// closePatience bounds how long Close waits for lines that can't be written.
const closePatience = time.Second

// OpenLogs starts the logs. A folder that is missing is made; a log that can't be written is no error, but is said on
// stderr and by [Logs.Err], and is tried again until it works. The error is about cfg alone.
func OpenLogs(cfg LogConfig) (*Logs, error) {
	if cfg.MaxSizeMB < 1 || cfg.MaxBackups < 0 || cfg.MaxAgeDays < 0 {
		return nil, fmt.Errorf("logs: size %d MB, %d backups, %d days: the size must be 1 or more, the others 0 or more",
			cfg.MaxSizeMB, cfg.MaxBackups, cfg.MaxAgeDays)
	}
	if wanted(cfg.Usage) && wanted(cfg.Error) && samePath(cfg.Usage, cfg.Error) {
		return nil, fmt.Errorf("logs: usage log and error log are both %s: each must have its own", cfg.Usage)
	}
	if cfg.Level == hclog.NoLevel {
		cfg.Level = hclog.Info
	}
	l := &Logs{stderr: newQueue("stderr", plainLog{cfg.Stderr}, nil)}
	options := cfg.stderrOptions(l.stderr)
	l.logger = hclog.NewInterceptLogger(options)
	// What is said about the logs goes to stderr alone.
	own := hclog.New(options)
	for _, log := range []struct {
		path  string
		level hclog.Level
	}{{cfg.Usage, cfg.Level}, {cfg.Error, hclog.Error}} {
		if !wanted(log.path) {
			continue
		}
		q := newQueue(log.path, newRotatedLog(log.path, cfg), own)
		l.files = append(l.files, q)
		l.logger.RegisterSink(hclog.NewSinkAdapter(jsonOptions(cfg.Name, log.level, q)))
	}
	return l, nil
}

func (cfg LogConfig) stderrOptions(w io.Writer) *hclog.LoggerOptions {
	if !cfg.Terminal {
		return jsonOptions(cfg.Name, cfg.Level, w)
	}
	return &hclog.LoggerOptions{Name: cfg.Name, Level: cfg.Level, Output: w, TimeFormat: "15:04:05.000"}
}

func jsonOptions(name string, level hclog.Level, w io.Writer) *hclog.LoggerOptions {
	return &hclog.LoggerOptions{
		Name: name, Level: level, Output: w, JSONFormat: true,
		TimeFormat: timeFormat, TimeFn: func() time.Time { return time.Now().UTC() },
	}
}

func wanted(path string) bool { return path != "" && path != os.DevNull }

func samePath(a, b string) bool {
	absolute := func(p string) string {
		if full, err := filepath.Abs(p); err == nil {
			p = full
		}
		if dir, err := filepath.EvalSymlinks(filepath.Dir(p)); err == nil {
			p = filepath.Join(dir, filepath.Base(p))
		}
		return p
	}
	return absolute(a) == absolute(b)
}

// Logger writes to all of the logs. It never fails and, but for a second when a disk first hangs, never waits.
func (l *Logs) Logger() hclog.Logger { return l.logger }

// Err says which log files can't be written now, and why; nil while all can.
func (l *Logs) Err() error {
	var errs []error
	for _, q := range l.files {
		errs = append(errs, q.err())
	}
	return errors.Join(errs...)
}

// Reopen has the files opened anew by their names, after another program moved them (SIGHUP).
func (l *Logs) Reopen() {
	for _, q := range l.files {
		q.reopen()
	}
}

// Close writes what waits, for a second at most, and closes the files. What is logged later is dropped.
func (l *Logs) Close() error {
	deadline := time.Now().Add(closePatience)
	var errs []error
	for _, q := range slices.Concat(l.files, []*queue{l.stderr}) { // stderr last: closing the others may say something
		errs = append(errs, q.close(time.Until(deadline)))
	}
	return errors.Join(errs...)
}
