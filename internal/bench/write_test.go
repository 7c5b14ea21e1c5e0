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

// BenchmarkWholeWrite is the time that the whole file takes to be written, against writing and syncing as many bytes
// plainly over an older file, and against their SHA-256 alone.
func BenchmarkWholeWrite(b *testing.B) {
	view := export(b, database(b, rows(b)))
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
	write() // so that there are older files
	plain()
	var whole, floor, sum time.Duration
	for b.Loop() {
		floor += plain()
		whole += write()
		sum += hashed(view.Bytes())
	}
	for name, took := range map[string]time.Duration{"plain": floor, "capture": whole, "sha256": sum} {
		b.ReportMetric(millis(took)/float64(b.N), name+"-ms")
	}
	b.ReportMetric(float64(view.Bytes()), "file-bytes")
}

// BenchmarkOneChange is the time that the file takes to be written after a change of one row, as the daemon says it, in a
// small table and in a large one: of any row, the first time after the start; then of the newest row, which is at the file's
// end, and of any.
func BenchmarkOneChange(b *testing.B) {
	for name, n := range map[string]int{"small": 1000, "large": rows(b)} {
		b.Run(name, func(b *testing.B) {
			url := database(b, n)
			conn := connect(b, url)
			took := make(map[string][]float64)
			for b.Loop() {
				d := start(b, url)
				f := d.flushed("start")
				change := func(id int) float64 {
					sql(b, conn, "UPDATE votes SET comment = $1 WHERE vote_id = $2", fmt.Sprint("changed ", rand.Int64()), id)
					return d.flushed("change").Millis
				}
				d.idle(f)
				took["first"] = append(took["first"], change(1+rand.IntN(n)))
				for range 5 {
					took["newest"] = append(took["newest"], change(n))
				}
				for range 5 {
					took["any"] = append(took["any"], change(1+rand.IntN(n)))
				}
				d.stop()
				took["plain"] = append(took["plain"], millis(plainWrite(b, filepath.Join(dir, "plain.json"), f.Bytes)))
			}
			for name, all := range took {
				b.ReportMetric(quantile(all, 0.5), name+"-ms")
			}
		})
	}
}

// idle waits until the daemon has made the second file that the changes of a large one are written into, or for a minute
// where it makes none.
func (d *daemon) idle(f flush) {
	if f.Bytes < 4<<20 { // a smaller file is always written whole
		return
	}
	for begun := time.Now(); time.Since(begun) < time.Minute; time.Sleep(100 * time.Millisecond) {
		if info, err := os.Stat(d.path + ".tmp"); err == nil && info.Size() == f.Bytes {
			break
		}
	}
	time.Sleep(time.Second) // it may still have to be synced
}

// export is the table's rows as the file is written from them.
func export(b *testing.B, url string) *snapshot.View {
	b.Helper()
	db, err := postgres.ParseConfig(url)
	if err != nil {
		b.Fatal(err)
	}
	view, err := capture.Export(b.Context(), capture.Config{Database: db, Table: postgres.Name{Table: "votes"}})
	if err != nil {
		b.Fatal(err)
	}
	return view
}

// block is what plain files are made of: bytes that no disk can make less of.
var block = func() []byte {
	b := make([]byte, 1<<20)
	random := rand.NewChaCha8([32]byte{})
	_, _ = random.Read(b) // never fails
	return b
}()

// plainWrite writes a file of n bytes and syncs it, renames it to path, and syncs the folder: the least that a whole
// and durable new version takes.
func plainWrite(b *testing.B, path string, n int64) time.Duration {
	b.Helper()
	begun := time.Now()
	f, err := os.Create(path + ".tmp")
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for n > 0 && err == nil {
		part := block[:min(n, int64(len(block)))]
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

// hashed is the time that the SHA-256 of n bytes takes one processor.
func hashed(n int64) time.Duration {
	begun := time.Now()
	h := sha256.New()
	for n > 0 {
		part := block[:min(n, int64(len(block)))]
		h.Write(part)
		n -= int64(len(part))
	}
	fmt.Fprintf(io.Discard, "%x", h.Sum(nil))
	return time.Since(begun)
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
