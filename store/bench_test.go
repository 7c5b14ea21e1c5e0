package store_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
)

// BenchmarkFlush writes tables of 100,000 and 1,000,000 votes of 3 kB. For each table, it first writes the whole file. It
// divides the time by the time of a plain write and sync of the same number of bytes, and reports the quotient. Then it
// measures Writes after one vote was inserted at the end, or changed at the end or in the middle. The larger table needs
// -timeout 60m and 9 GB of disk.
func BenchmarkFlush(b *testing.B) {
	store.SetPatchFrom(4 << 20)
	defer store.SetPatchFrom(testPatchFrom)
	for _, rows := range []int{100_000, 1_000_000} {
		b.Run(fmt.Sprintf("rows=%d", rows), func(b *testing.B) { benchmarkFlush(b, rows) })
	}
}

func benchmarkFlush(b *testing.B, rows int) {
	tab := votes(0, "")
	for i := range rows {
		tab.Put(key(i), row(i, 3000, string(rune('a'+i%26))))
	}
	tab.Commit(snapshot.Position{LSN: 1})
	size := tab.View().Bytes()
	f, err := store.Open(filepath.Join(b.TempDir(), "feedback.json"), owner)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	flush := func(b *testing.B) (took time.Duration, bytesWritten int64) {
		start := time.Now()
		r, err := f.Write(tab.View(), store.ReasonChange)
		if err != nil {
			b.Fatal(err)
		}
		return time.Since(start), r.BytesWritten
	}
	b.Run("whole", func(b *testing.B) {
		var plain, whole time.Duration
		for round := 1; b.Loop(); round++ {
			plain += plainWrite(b, filepath.Join(b.TempDir(), "plain"), size)
			other := tab.View().Shape()
			tab.Load(&rowjson.Shape{Schema: other.Schema, Table: other.Table, Key: other.Key, Columns: other.Columns}, snapshot.Origin{})
			for i := range rows {
				tab.Put(key(i), row(i, 3000, string(rune('a'+(i+round)%26)))) // with the same rows, Write would write nothing
			}
			tab.Commit(snapshot.Position{LSN: 1})
			took, n := flush(b)
			if whole += took; n < size {
				b.Fatal("the file was not written whole")
			}
		}
		b.ReportMetric(float64(size)*float64(b.N)/whole.Seconds()/1e6, "MB/s")
		b.ReportMetric(whole.Seconds()/plain.Seconds(), "×plain")
	})
	n := rows
	for range 2 { // after two changes, there is a shadow file for the measured writes to patch
		n++
		tab.Put(key(n), row(n, 3000, "z"))
		tab.Commit(snapshot.Position{LSN: 1})
		flush(b)
	}
	for _, c := range []struct {
		name string
		id   func() int
	}{{"insert", func() int { n++; return n }}, {"update=last", func() int { return n }}, {"update=middle", func() int { return rows / 2 }}} {
		b.Run(c.name, func(b *testing.B) {
			var took time.Duration
			wrote := int64(0)
			for i := 0; b.Loop(); i++ {
				id := c.id()
				tab.Put(key(id), row(id, 3000+i%50, "z"))
				tab.Commit(snapshot.Position{LSN: 1})
				once, n := flush(b)
				took, wrote = took+once, wrote+n
			}
			b.ReportMetric(float64(took.Microseconds())/1000/float64(b.N), "ms/flush")
			b.ReportMetric(float64(wrote)/float64(b.N)/1024, "KiB/flush")
		})
	}
}

// plainWrite writes and syncs a file of size bytes, and renames it over the previous file.
func plainWrite(b *testing.B, path string, size int64) time.Duration {
	chunk := []byte(strings.Repeat("x", 1<<20))
	start := time.Now()
	file, err := os.Create(path + ".tmp")
	if err != nil {
		b.Fatal(err)
	}
	defer file.Close()
	for left := size; left > 0; left -= int64(len(chunk)) {
		if _, err := file.Write(chunk[:min(left, int64(len(chunk)))]); err != nil {
			b.Fatal(err)
		}
	}
	if err := file.Sync(); err != nil {
		b.Fatal(err)
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		b.Fatal(err)
	}
	return time.Since(start)
}
