package logfile_test

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capture/internal/logfile"
)

// TestMaxAge: rotated files that are too old are removed, including those of an earlier run. Other files stay.
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

// TestBurst: after a burst of lines the logs stay within their cap, compressed or not.
func TestBurst(t *testing.T) {
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprint("compress=", compress), func(t *testing.T) {
			cfg := testConfig(t.TempDir(), io.Discard)
			cfg.MaxSizeMB, cfg.MaxBackups, cfg.Compress = 1, 3, compress
			logs := openLogs(t, cfg)
			log := logs.Logger()
			pad := strings.Repeat("x", 400)
			for i := range 12_000 { // 6 MB
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
						return false // it has just been renamed or removed
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

// TestDiskBytes: a log and its rotated files count, and other files in the folder do not.
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
