package main

import (
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"capture/capture"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/store"
)

// BenchmarkWholeWrite measures a Write of the whole file. The baseline is plainWrite, which writes and syncs the same number
// of bytes and replaces an older file. For comparison, BenchmarkWholeWrite also measures the SHA-256 of the same number of
// bytes.
func BenchmarkWholeWrite(b *testing.B) {
	view := exportTable(b, votesDatabase(b, tableRows(b)))
	folder := b.TempDir()
	path, bare := filepath.Join(folder, "feedback.json"), filepath.Join(folder, "plain.json")
	write := func() time.Duration {
		f, err := store.Open(path, store.Owner{PID: os.Getpid()})
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		begun := time.Now()
		if _, err := f.Write(view, store.ReasonStart); err != nil {
			b.Fatal(err)
		}
		return time.Since(begun)
	}
	plain := func() time.Duration { return plainWrite(b, bare, view.Bytes()) }
	// Create both files first, so that each measured write replaces a file.
	write()
	plain()
	var whole, floor, sum time.Duration
	for b.Loop() {
		floor += plain()
		whole += write()
		sum += hashBytes(view.Bytes())
	}
	for name, took := range map[string]time.Duration{"plain": floor, "capture": whole, "sha256": sum} {
		b.ReportMetric(milliseconds(took)/float64(b.N), name+"-ms")
	}
	b.ReportMetric(float64(view.Bytes()), "file-bytes")
}

// BenchmarkOneChange measures the Write after a change of one row, in a small and a large table. The daemon logs the duration
// of the Write. The benchmark reports three kinds of changes separately: the first change after the start (of a random row),
// changes of the newest row (at the end of the file), and later changes of random rows.
func BenchmarkOneChange(b *testing.B) {
	for name, n := range map[string]int{"small": 1000, "large": tableRows(b)} {
		b.Run(name, func(b *testing.B) {
			url := votesDatabase(b, n)
			conn := connect(b, url)
			took := make(map[string][]float64)
			for b.Loop() {
				d := startDaemon(b, url)
				f := d.waitFlush("start")
				change := func(id int) float64 {
					execSQL(b, conn, "UPDATE votes SET comment = $1 WHERE vote_id = $2", fmt.Sprint("changed ", rand.Int64()), id)
					return d.waitFlush("change").Millis
				}
				d.waitIdle(f)
				took["first"] = append(took["first"], change(1+rand.IntN(n)))
				for range 5 {
					took["newest"] = append(took["newest"], change(n))
				}
				for range 5 {
					took["any"] = append(took["any"], change(1+rand.IntN(n)))
				}
				d.stop()
				took["plain"] = append(took["plain"], milliseconds(plainWrite(b, filepath.Join(dir, "plain.json"), f.Bytes)))
			}
			for name, all := range took {
				b.ReportMetric(quantile(all, 0.5), name+"-ms")
			}
		})
	}
}

// waitIdle waits for up to a minute until the shadow file is a copy of feedback.json. Later Writes can then patch the shadow
// file. A small file has no shadow file, so waitIdle does not wait for it.
func (d *daemon) waitIdle(f flush) {
	if f.Bytes < 4<<20 { // a smaller file is always written whole
		return
	}
	for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(100 * time.Millisecond) {
		if info, err := os.Stat(d.path + ".tmp"); err == nil && info.Size() == f.Bytes {
			break
		}
	}
	time.Sleep(time.Second) // the shadow file may not be synced yet
}

// exportTable returns a View of the table.
func exportTable(b *testing.B, url string) *snapshot.View {
	b.Helper()
	db, err := postgres.ParseConfig(url)
	if err != nil {
		b.Fatal(err)
	}
	view, err := capture.Export(b.Context(), capture.Config{Database: db, Table: postgres.Name{Table: "votes"}}, nil)
	if err != nil {
		b.Fatal(err)
	}
	return view
}

// randomBlock is the content of plain files. No disk can compress it.
var randomBlock = func() []byte {
	b := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(b) // never fails
	return b
}()

// plainWrite writes a file of n bytes, syncs it, renames it to path and syncs the folder. No program can durably replace a
// whole file with fewer steps. plainWrite returns the time that it took.
func plainWrite(b *testing.B, path string, n int64) time.Duration {
	b.Helper()
	begun := time.Now()
	f, err := os.Create(path + ".tmp")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for n > 0 && err == nil {
		part := randomBlock[:min(n, int64(len(randomBlock)))]
		_, err = f.Write(part)
		n -= int64(len(part))
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = os.Rename(path+".tmp", path)
	}
	if err != nil {
		b.Fatal(err)
	}
	folder, err := os.Open(filepath.Dir(path))
	if err != nil {
		b.Fatal(err)
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil {
		b.Fatal(err)
	}
	return time.Since(begun)
}

// hashBytes returns the time that one processor needs to compute the SHA-256 of n bytes.
func hashBytes(n int64) time.Duration {
	begun := time.Now()
	h := sha256.New()
	for n > 0 {
		part := randomBlock[:min(n, int64(len(randomBlock)))]
		h.Write(part)
		n -= int64(len(part))
	}
	fmt.Fprintf(io.Discard, "%x", h.Sum(nil))
	return time.Since(begun)
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
