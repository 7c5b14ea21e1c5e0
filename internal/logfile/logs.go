// Package logfile provides one hclog logger that writes to usage.log, error.log and stderr.
//
// Logging never stops the program and hardly delays it. Each log has an asyncWriter: a queue of lines and a goroutine that
// writes them. While the disk is full, slow or gone, lines wait in the queue. When the queue is full, further lines are dropped
// and counted. [Logs.Err] returns an error while a log cannot be written. A message on stderr also reports the error, and a
// later message reports the number of dropped lines. lumberjack rotates the files.
package logfile

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/foreign"
)

// Config determines where logs are written, and how many rotated logs are kept.
type Config struct {
	Usage string // path of usage.log; "" or /dev/null means no such log
	Error string // path of error.log; "" or /dev/null means no such log

	MaxSizeMB  int  // size in MB at which a log is rotated; at least 1
	MaxBackups int  // number of rotated logs that are kept; 0 keeps all
	MaxAgeDays int  // age in days at which rotated logs are removed; 0 keeps all
	Compress   bool // whether rotated logs are compressed by gzip

	Level    hclog.Level // lowest level in usage.log and on stderr; NoLevel means Info
	Stderr   io.Writer
	Terminal bool   // whether a person reads Stderr, which then gets text instead of JSON
	Name     string // name of the logger
}

// Logs are usage.log, error.log and stderr, behind one logger.
type Logs struct {
	logger hclog.InterceptLogger
	stderr *asyncWriter
	files  []*asyncWriter
}

// closeTimeout is the maximum time that Close waits for lines that cannot be written.
const closeTimeout = time.Second

// timeFormat has exactly six decimals of a second, so times line up and sort as text.
const timeFormat = "2006-01-02T15:04:05.000000Z07:00"

// Open starts the logs. It creates missing folders. If a log cannot be written, Open does not fail: stderr and [Logs.Err]
// report the error, and writing is retried until it works. Open fails only if cfg is invalid or another process writes to one
// of the logs.
func Open(cfg Config) (*Logs, error) {
	if cfg.MaxSizeMB < 1 || cfg.MaxBackups < 0 || cfg.MaxAgeDays < 0 {
		return nil, fmt.Errorf("open logs: size %d MB, %d backups, %d days: the size must be 1 or more, the others 0 or more",
			cfg.MaxSizeMB, cfg.MaxBackups, cfg.MaxAgeDays)
	}
	if isWanted(cfg.Usage) && isWanted(cfg.Error) && isSamePath(cfg.Usage, cfg.Error) {
		return nil, fmt.Errorf("open logs: usage log and error log are both %s: give each its own file", cfg.Usage)
	}
	if cfg.Level == hclog.NoLevel {
		cfg.Level = hclog.Info
	}
	l := &Logs{stderr: newAsyncWriter("stderr", stderrOutput{cfg.Stderr}, nil)}
	options := cfg.stderrOptions(l.stderr)
	l.logger = hclog.NewInterceptLogger(options)
	// Messages about the logs themselves go only to stderr.
	fallback := hclog.New(options)
	for _, log := range []struct {
		path  string
		level hclog.Level
	}{{cfg.Usage, cfg.Level}, {cfg.Error, hclog.Error}} {
		if !isWanted(log.path) {
			continue
		}
		w := newAsyncWriter(log.path, newRotatedFile(log.path, cfg), fallback)
		l.files = append(l.files, w)
		l.logger.RegisterSink(hclog.NewSinkAdapter(jsonOptions(cfg.Name, log.level, w)))
	}
	if err := l.checkInUse(); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("open logs: %w", err)
	}
	return l, nil
}

// checkInUse returns an error if another process writes to one of the logs. It waits at most closeTimeout for a disk that
// hangs, and then returns nil.
func (l *Logs) checkInUse() error {
	timeout := time.NewTimer(closeTimeout)
	defer timeout.Stop()
	for _, w := range l.files {
		select {
		case <-w.opened:
			if err := w.err(); errors.Is(err, errInUse) {
				return err
			}
		case <-timeout.C:
			return nil
		}
	}
	return nil
}

func (cfg Config) stderrOptions(w io.Writer) *hclog.LoggerOptions {
	if !cfg.Terminal {
		return jsonOptions(cfg.Name, cfg.Level, w)
	}
	// Without JSONFormat, hclog escapes values, but not messages.
	safe := escapingWriter{w, func(line []byte) []byte { return []byte(foreign.Lines(string(line))) }}
	return &hclog.LoggerOptions{Name: cfg.Name, Level: cfg.Level, Output: safe, TimeFormat: "15:04:05.000"}
}

func jsonOptions(name string, level hclog.Level, w io.Writer) *hclog.LoggerOptions {
	return &hclog.LoggerOptions{
		Name: name, Level: level, Output: escapingWriter{w, foreign.JSON}, JSONFormat: true,
		TimeFormat: timeFormat, TimeFn: func() time.Time { return time.Now().UTC() },
	}
}

// escapingWriter makes each line of a logger safe to display. An operator reads the logs on a terminal, and they can contain names
// that come from the database, files and peers.
type escapingWriter struct {
	to     io.Writer
	escape func(line []byte) []byte
}

// Write gets one line, or several lines that belong together.
func (w escapingWriter) Write(line []byte) (int, error) {
	if _, err := w.to.Write(w.escape(line)); err != nil {
		return 0, err
	}
	return len(line), nil
}

func isWanted(path string) bool { return path != "" && path != os.DevNull }

func isSamePath(a, b string) bool {
	resolve := func(path string) string {
		if full, err := filepath.Abs(path); err == nil {
			path = full
		}
		if dir, err := filepath.EvalSymlinks(filepath.Dir(path)); err == nil {
			path = filepath.Join(dir, filepath.Base(path))
		}
		return path
	}
	return resolve(a) == resolve(b)
}

// Logger returns a logger that writes to all logs. The logger never fails. When a disk begins to hang, the logger waits once,
// for at most a second.
func (l *Logs) Logger() hclog.Logger { return l.logger }

// Err returns an error that names each log file that cannot be written now, and the reason. It returns nil if all log files can
// be written.
func (l *Logs) Err() error {
	var errs []error
	for _, w := range l.files {
		errs = append(errs, w.err())
	}
	return errors.Join(errs...)
}

// Reopen opens the files again by their names, after another program moved them (SIGHUP).
func (l *Logs) Reopen() {
	for _, w := range l.files {
		w.reopen()
	}
}

// Close writes the queued lines, for at most a second, and closes the files. Lines that are logged after Close are dropped.
func (l *Logs) Close() error {
	deadline := time.Now().Add(closeTimeout)
	var errs []error
	// Close stderr last, because closing a file may report trouble on stderr.
	for _, w := range slices.Concat(l.files, []*asyncWriter{l.stderr}) {
		errs = append(errs, w.close(time.Until(deadline)))
	}
	return errors.Join(errs...)
}
