package store

import (
	"errors"
	"fmt"
	"io"
	"os"

	"gopkg.in/natefinch/lumberjack.v2"
)

// rotatedLog is a log file that lumberjack rotates. Around it, rotatedLog notices a file that somebody moved or removed,
// takes back a line that was written in part, and keeps lumberjack from moving aside what is not a log: it would rename a
// folder or a device.
type rotatedLog struct {
	path string
	max  int64
	out  *lumberjack.Logger
	open os.FileInfo // of the file that out has open; nil where it has none
}

func newRotatedLog(path string, cfg LogConfig) *rotatedLog {
	return &rotatedLog{
		path: path,
		max:  int64(cfg.MaxSizeMB) << 20,
		out: &lumberjack.Logger{
			Filename: path, MaxSize: cfg.MaxSizeMB, MaxBackups: cfg.MaxBackups, MaxAge: cfg.MaxAgeDays,
			Compress: cfg.Compress,
		},
	}
}

func (r *rotatedLog) write(line []byte) error {
	if int64(len(line)) > r.max {
		return errLineTooLong
	}
	info, err := os.Stat(r.path)
	switch {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file; name another, or remove it", r.path)
	case err != nil && !missing(err):
		return advise(err)
	case r.open != nil && (err != nil || !os.SameFile(info, r.open)):
		r.shut()
	}
	n, err := r.out.Write(line)
	if err == nil {
		if r.open == nil {
			r.open, _ = os.Stat(r.path)
		}
		return nil // where lumberjack has just rotated, the next write sees another file, and opens it once more
	}
	r.shut() // so that it looks at the file anew, and appends
	if n > 0 {
		err = errors.Join(err, r.takeBack(int64(n)))
	}
	return advise(err)
}

// takeBack cuts off the n bytes of a line that a full disk cut short.
func (r *rotatedLog) takeBack(n int64) error {
	info, err := os.Stat(r.path)
	if err != nil {
		return err
	}
	return os.Truncate(r.path, info.Size()-n)
}

func (r *rotatedLog) shut() {
	r.out.Close()
	r.open = nil
}

func (r *rotatedLog) lasting() bool { return true }

// plainLog is stderr. What it does not take is lost: there is nobody left to tell.
type plainLog struct{ w io.Writer }

func (p plainLog) write(line []byte) error {
	if p.w == nil || len(line) == 0 {
		return nil
	}
	_, err := p.w.Write(line)
	return err
}

func (p plainLog) shut() {}

func (p plainLog) lasting() bool { return false }
