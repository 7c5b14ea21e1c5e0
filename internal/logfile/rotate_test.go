package logfile_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"capture/internal/logfile"
)

// TestMaxAge checks that rotated files that are too old are removed, even if an earlier run has rotated them. Other files
// stay.
func TestMaxAge(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig(dir, io.Discard)
	cfg.MaxAgeDays = 1
	folder := filepath.Dir(cfg.Usage)
	if err := os.MkdirAll(folder, 0o755); err != nil {
		t.Fatal(err)
	}
	stamp := func(age time.Duration) string {
		return filepath.Join(folder, "usage-"+time.Now().UTC().Add(-age).Format("2006-01-02T15-04-05.000")+".log")
	}
	old, young, other := stamp(72*time.Hour), stamp(time.Hour), filepath.Join(folder, "usage-notes.log")
	for _, path := range []string{old, young, other} {
		if err := os.WriteFile(path, []byte("{}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	openLogs(t, cfg).Logger().Info("begin")
	within(t, "the old file is removed", func() bool {
		_, err := os.Stat(old)
		return os.IsNotExist(err)
	})
	for _, path := range []string{young, other} {
		if _, err := os.Stat(path); err != nil {
			t.Error(err)
		}
	}
}

// TestBurst checks that the logs stay within their maximum size after a burst of lines, compressed or not.
func TestBurst(t *testing.T) {
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprint("compress=", compress), func(t *testing.T) {
			cfg := testConfig(t.TempDir(), io.Discard)
			cfg.MaxSizeMB, cfg.MaxBackups, cfg.Compress = 1, 3, compress
			logs := openLogs(t, cfg)
			log := logs.Logger()
			pad := strings.Repeat("x", 1100)
			for i := range 5000 { // 6 MB
				log.Info("captured", "n", i, "pad", pad)
			}
			if err := logs.Close(); err != nil {
				t.Fatal(err)
			}
			within(t, "the logs are within their cap", func() bool {
				files, _ := filepath.Glob(filepath.Join(filepath.Dir(cfg.Usage), "*"))
				size, zipped := int64(0), 0
				for _, f := range files {
					info, err := os.Stat(f)
					if err != nil {
						return false // the file has just been renamed or removed
					}
					size += info.Size()
					if strings.HasSuffix(f, ".gz") {
						zipped++
					}
				}
				want := 0
				if compress {
					want = 3
				}
				return len(files) == 4 && zipped == want && size <= 4<<20
			})
		})
	}
}

// TestDiskBytes checks that DiskBytes counts a log and its rotated files, but no other files in the folder.
func TestDiskBytes(t *testing.T) {
	dir := t.TempDir()
	for name, size := range map[string]int{
		"usage.log": 1, "usage-2026-11-23T16-00-00.000.log": 10, "usage-2026-11-23T15-00-00.000.log.gz": 100,
		"error.log": 1000, "usage.log.bak": 1000, "usage-notes.txt": 1000, "old-usage.log": 1000,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), make([]byte, size), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if n := logfile.DiskBytes(filepath.Join(dir, "usage.log")); n != 111 {
		t.Errorf("%d bytes, not 111", n)
	}
	if n := logfile.DiskBytes(filepath.Join(dir, "none", "usage.log")); n != 0 {
		t.Errorf("%d bytes in a missing folder", n)
	}
}

// TestLogrotate lets another program truncate, replace or move the log. Only the lines that the other program removes are
// lost, and the log gets no hole of NUL bytes.
func TestLogrotate(t *testing.T) {
	for _, kind := range []string{"copytruncate", "create", "move"} {
		t.Run(kind, func(t *testing.T) {
			cfg := testConfig(t.TempDir(), io.Discard)
			cfg.MaxSizeMB = 1
			l := openLogs(t, cfg)
			log := l.Logger()
			seen := map[int]bool{}
			collect := func(path string) {
				for _, line := range lines(t, path) { // fails for a line that is not JSON, such as one after NUL bytes
					seen[line.N] = true
				}
			}
			const rounds, each = 5, 200
			for round := range rounds {
				for i := range each {
					log.Info("captured", "N", round*each+i)
				}
				within(t, "the round is written", func() bool {
					content, err := os.ReadFile(cfg.Usage)
					return err == nil && regexp.MustCompile(fmt.Sprintf(`"N":%d\b`, (round+1)*each-1)).Match(content)
				})
				collect(cfg.Usage)
				var err error
				switch kind {
				case "copytruncate":
					err = os.Truncate(cfg.Usage, 0)
				case "create":
					if err = os.Rename(cfg.Usage, cfg.Usage+".1"); err == nil {
						err = os.WriteFile(cfg.Usage, nil, 0o600)
					}
				case "move":
					err = os.Rename(cfg.Usage, cfg.Usage+".1")
				}
				if err != nil {
					t.Fatal(err)
				}
			}
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			if len(seen) != rounds*each {
				t.Errorf("%d of %d lines", len(seen), rounds*each)
			}
		})
	}
}

// TestLogInUse checks that a second daemon cannot use the log of the first daemon, not even after a rotation.
func TestLogInUse(t *testing.T) {
	cfg := testConfig(t.TempDir(), io.Discard)
	cfg.MaxSizeMB = 1
	first := openLogs(t, cfg)
	refused := func(when string) {
		t.Helper()
		if _, err := logfile.Open(cfg); err == nil || !strings.Contains(err.Error(), cfg.Usage+": another process writes to this log") {
			t.Errorf("%s: error %v", when, err)
		}
	}
	refused("at first")
	for i := range 500 { // 2 MB
		first.Logger().Info("captured", "n", i, "pad", strings.Repeat("x", 4000))
	}
	within(t, "the log is rotated", func() bool {
		backups, _ := filepath.Glob(filepath.Join(filepath.Dir(cfg.Usage), "usage-*.log"))
		return len(backups) > 0 && first.Err() == nil
	})
	first.Logger().Info("after the rotation")
	within(t, "the line is written", func() bool {
		content, err := os.ReadFile(cfg.Usage)
		return err == nil && strings.Contains(string(content), "after the rotation")
	})
	refused("after a rotation")
	other := cfg // only the error log is shared
	other.Usage = filepath.Join(t.TempDir(), "usage.log")
	if _, err := logfile.Open(other); err == nil || !strings.Contains(err.Error(), cfg.Error+": another process") {
		t.Errorf("a shared error log: %v", err)
	}
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	openLogs(t, cfg) // the logs are free again
}
