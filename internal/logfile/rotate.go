package logfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"gopkg.in/natefinch/lumberjack.v2"

	"capture/internal/volume"
)

// rotatedFile is a log file that lumberjack rotates. It adds what lumberjack lacks: it notices that the file was moved or
// removed, removes a line that was written in part, and refuses a path that is not a regular file, which lumberjack would
// rename even if it is a folder or a device.
type rotatedFile struct {
	path   string
	max    int64 // size at which lumberjack rotates, in bytes
	logger *lumberjack.Logger
	open   os.FileInfo // the file that logger has open; nil if none
}

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
	info, err := os.Lstat(f.path) // a link could lead to any file that this user may write
	switch {
	case err == nil && !info.Mode().IsRegular():
		return fmt.Errorf("%s is not a regular file; name another file, or remove it", f.path)
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return volume.WithHint(err)
	case f.open != nil && (err != nil || !os.SameFile(info, f.open)):
		f.closeFile()
	}
	written, err := f.logger.Write(line)
	if err == nil {
		if f.open == nil {
			f.open, _ = os.Lstat(f.path)
		}
		return nil // if lumberjack has just rotated, the next write sees another file and reopens once more
	}
	f.closeFile() // lumberjack then looks at the file again before it appends
	if written > 0 {
		err = errors.Join(err, f.cutPartialLine(int64(written)))
	}
	return volume.WithHint(err)
}

// cutPartialLine removes the n bytes of a line that a full disk cut short.
func (f *rotatedFile) cutPartialLine(n int64) error {
	info, err := os.Stat(f.path)
	if err != nil {
		return err
	}
	return os.Truncate(f.path, info.Size()-n)
}

func (f *rotatedFile) closeFile() {
	f.logger.Close()
	f.open = nil
}

func (f *rotatedFile) isRetryable() bool { return true }

// stderrOutput is stderr. A line that it does not take is lost: there is nowhere else to report that.
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

// DiskBytes returns the size of the log at path and of its rotated files, by their names alone: the folder may hold a great many files of
// others.
func DiskBytes(path string) (n int64) {
	folder, base := filepath.Split(path)
	entries, err := os.ReadDir(filepath.Clean(folder + "."))
	if err != nil {
		return 0
	}
	ext := filepath.Ext(base)
	rotated := strings.TrimSuffix(base, ext) + "-" // lumberjack's names: usage-2026-11-23T16-00-00.000.log, maybe with .gz
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
