package logfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"gopkg.in/natefinch/lumberjack.v2"

	"capture/internal/volume"
)

// rotatedFile is a log file that lumberjack rotates. It adds what lumberjack lacks:
//   - It detects that another program moved, removed or truncated the file, as logrotate does.
//   - It removes a line that was written in part.
//   - It keeps a second process from writing to the same file.
//   - It refuses a path that is not a regular file. lumberjack would rename even a folder or a device.
type rotatedFile struct {
	path   string
	max    int64 // size at which lumberjack rotates, in bytes
	logger *lumberjack.Logger
	lock   *os.File    // our own handle of the file that lumberjack has open, which holds the lock; nil if no file is open
	open   os.FileInfo // properties of the open file when it was opened; nil if no file is open
	size   int64       // minimum size of the file in bytes; a smaller file was truncated by another program
}

// errInUse means that another process writes to the log.
var errInUse = errors.New("another process writes to this log; give each daemon logs of its own (--usage-log, --error-log)")

func newRotatedFile(path string, cfg Config) *rotatedFile {
	return &rotatedFile{
		path: path,
		max:  int64(cfg.MaxSizeMB) << 20,
		logger: &lumberjack.Logger{
			Filename: path, MaxSize: cfg.MaxSizeMB, MaxBackups: cfg.MaxBackups, MaxAge: cfg.MaxAgeDays,
			Compress: cfg.Compress,
		},
	}
}

func (f *rotatedFile) writeLine(line []byte) error {
	if int64(len(line)) > f.max {
		return errLineTooLong
	}
	info, err := os.Lstat(f.path) // Lstat, because a link could lead to any file that this user may write
	switch {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file; name another file, or remove it", f.path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return volume.WithHint(err)
	case f.open != nil && (err != nil || !os.SameFile(info, f.open) || info.Size() < f.size):
		f.closeFile()
	}
	if f.open == nil {
		if err := f.lockFile(); err != nil {
			return err
		}
	}
	written, err := f.logger.Write(line)
	if err == nil {
		f.size += int64(written)
		return nil // if lumberjack has just rotated, the next call detects the new file and locks it
	}
	f.closeFile() // lumberjack must open the file again before it appends
	if written > 0 {
		err = errors.Join(err, f.cutPartialLine(int64(written)))
	}
	return volume.WithHint(err)
}

// lockFile creates the file if it is missing, and locks it. lumberjack opens an existing file with O_APPEND, but would create
// a missing file without O_APPEND. If another program then truncated that file, the next line would leave a hole in it. On a
// file system without locks, logging continues without a lock.
func (f *rotatedFile) lockFile() error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return volume.WithHint(err)
	}
	file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	if err != nil {
		return volume.WithHint(err)
	}
	err = unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		file.Close()
		return fmt.Errorf("%s: %w", f.path, errInUse)
	}
	info, err := file.Stat()
	if err != nil {
		file.Close()
		return volume.WithHint(err)
	}
	f.lock, f.open, f.size = file, info, info.Size()
	return nil
}

// cutPartialLine removes the last n bytes of the file: the part of a line that was written before the write failed.
func (f *rotatedFile) cutPartialLine(n int64) error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	return os.Truncate(f.path, info.Size()-n)
}

func (f *rotatedFile) closeFile() {
	f.logger.Close()
	if f.lock != nil {
		f.lock.Close()
	}
	f.lock, f.open = nil, nil
}

func (f *rotatedFile) isRetryable() bool { return true }

// stderrOutput writes to stderr. A line that stderr does not accept is lost, because there is no other place for it.
type stderrOutput struct{ w io.Writer }

func (o stderrOutput) writeLine(line []byte) error {
	if o.w == nil || len(line) == 0 {
		return nil
	}
	_, err := o.w.Write(line)
	return err
}

func (o stderrOutput) closeFile() {}

func (o stderrOutput) isRetryable() bool { return false }

// DiskBytes returns the total size of the log at path and of its rotated files. It selects the files by name before it reads
// their sizes, because the folder may contain very many other files.
func DiskBytes(path string) (n int64) {
	folder, base := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(folder + "."))
	if err != nil {
		return 0
	}
	ext := filepath.Ext(base)
	rotated := strings.TrimSuffix(base, ext) + "-" // lumberjack's names are like usage-2026-11-23T16-00-00.000.log, possibly with .gz
	for _, e := range entries {
		name := strings.TrimSuffix(e.Name(), ".gz")
		if e.Name() != base && !(strings.HasPrefix(name, rotated) && strings.HasSuffix(name, ext)) {
			continue
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			n += info.Size()
		}
	}
	return n
}
