package snapshot

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"capture/snapshot/rowjson"
)

// bounded is a Table of small segments that keeps about limit bytes in memory, and what it says of damage.
func bounded(t *testing.T, limit int64) (tab *Table, damage chan error) {
	damage = make(chan error, 10)
	tab = newTable(4096, 4)
	tab.LimitMemory(limit, t.TempDir(), func(err error) { damage <- err })
	return tab, damage
}

func numbered(i int) rowjson.Key { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

func vote(i int, text string) []byte {
	return fmt.Appendf(nil, `{"id":%d,"text":"%s"}`, i, strings.Repeat(text, 50))
}

// load fills tab with n rows, and returns them as the model has them.
func load(tab *Table, n int, text string) (map[string]string, error) {
	rows := map[string]string{}
	tab.Load(&rowjson.Shape{}, Origin{})
	for i := range n {
		tab.Put(numbered(i), vote(i, text))
		rows[string(numbered(i))] = string(vote(i, text))
	}
	return rows, tab.Commit(Position{})
}

// TestHeapFileDamaged: what is no longer in the file as it was written is an error for whoever needs it, never a wrong row,
// and the next Load makes all anew.
func TestHeapFileDamaged(t *testing.T) {
	spoil := map[string]func(f *os.File, size int64) error{
		"bytes changed": func(f *os.File, size int64) error {
			for at := int64(0); at < size; at += 512 {
				b := make([]byte, 1)
				if _, err := f.ReadAt(b, at); errors.Is(err, io.EOF) {
					break // the last block is not whole
				} else if err != nil {
					return err
				}
				b[0] ^= 1
				if _, err := f.WriteAt(b, at); err != nil {
					return err
				}
			}
			return nil
		},
		"cut short": func(f *os.File, _ int64) error { return f.Truncate(0) },
		"unreadable": func(f *os.File, _ int64) error {
			null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			defer null.Close()
			return unix.Dup3(int(null.Fd()), int(f.Fd()), 0) // reads fail with EBADF
		},
	}
	for name, spoil := range spoil {
		t.Run(name, func(t *testing.T) {
			tab, damage := bounded(t, 8<<10)
			rows, err := load(tab, 2000, "old")
			if err != nil {
				t.Fatal(err)
			}
			v := tab.View()
			if got := fileOf(t, v); got != file(rows) {
				t.Fatal("not whole before")
			}
			if err := spoil(tab.memory.heap.file, int64(tab.memory.heap.blocks)*heapBlock); err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			if _, err := v.WriteTo(&b); err == nil {
				t.Error("it is written all the same")
			}
			failed := 0
			for k, want := range rows {
				line, err := v.Get(rowjson.Key(k))
				if err != nil {
					failed++
				} else if string(line) != want {
					t.Fatalf("Get gives %s", line)
				}
			}
			for name, all := range map[string]func(func(Row, error) bool){"From": v.From(nil), "Before": v.Before(nil)} {
				var last error
				for row, err := range all {
					if last = err; err == nil && string(row.Line) != rows[string(row.Key)] {
						t.Fatalf("%s gives %s", name, row.Line)
					}
				}
				if last == nil {
					t.Errorf("%s ends without an error", name)
				}
			}
			for p := range v.Parts() {
				if b, err := p.AppendTo([]byte("before")); err != nil && string(b) != "before" {
					t.Fatalf("AppendTo leaves %q", b)
				} else if err == nil && len(b) != len("before")+p.Bytes() {
					t.Fatalf("AppendTo gives %d bytes of %d", len(b), p.Bytes())
				}
			}
			if failed < len(rows)/2 || len(damage) != 1 {
				t.Errorf("%d of %d rows can't be read, damage told %d times", failed, len(rows), len(damage))
			}
			for i := range 2000 {
				if line, err := tab.Get(numbered(i)); err == nil && string(line) != rows[string(numbered(i))] {
					t.Fatalf("the writer reads %s", line)
				}
				tab.Put(numbered(i), vote(i, "new"))
			}
			if tab.Commit(Position{}) == nil || tab.View() != v {
				t.Error("a transaction over unreadable rows is committed")
			}
			tab.Delete(numbered(5))
			if tab.Commit(Position{}) == nil || tab.View() != v {
				t.Error("a deletion of an unreadable row is committed")
			}
			tab.Load(&rowjson.Shape{}, Origin{}) // which fails half-way
			tab.Put(numbered(1), vote(1, "x"))
			tab.Rollback()
			rows, err = load(tab, 1500, "new")
			if got := fileOf(t, tab.View()); err != nil || got != file(rows) {
				t.Errorf("not whole after another Load: %v", err)
			}
		})
	}
}

// TestHeapFileFull: while nothing can be written out, some more is kept in memory; then the transaction fails, and what was
// committed stays. It goes on when there is room again.
func TestHeapFileFull(t *testing.T) {
	tab, _ := bounded(t, 64<<10)
	rows, err := load(tab, 200, "old")
	if err != nil || tab.Usage().Spilled > 0 {
		t.Fatal(err, tab.Usage())
	}
	full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	tab.memory.heap = &heap{file: full}
	put := func(from, to int) error {
		for i := from; i < to; i++ {
			tab.Put(numbered(i), vote(i, "more"))
		}
		return tab.Commit(Position{})
	}
	for name, fail := range map[string]func() error{
		"a large transaction": func() error { return put(0, heldOps+1000) },
		"a copy":              func() error { _, err := load(tab, 2000, "new"); return err },
		"small ones": func() error {
			for i := 200; ; i++ {
				if err := put(i, i+1); err != nil {
					return err
				}
				rows[string(numbered(i))] = string(vote(i, "more"))
			}
		},
	} {
		err := fail()
		if !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), tab.memory.folder) {
			t.Errorf("%s: %v", name, err)
		}
		if got := fileOf(t, tab.View()); got != file(rows) {
			t.Fatalf("%s: what was committed is not what is left", name)
		}
	}
	if tab.memory.resident > 64<<10*3/2 {
		t.Errorf("%d bytes in memory", tab.memory.resident)
	}
	tab.memory.heap, tab.memory.retry = nil, time.Time{} // there is room again
	if rows, err = load(tab, 2000, "new"); err != nil || tab.Usage().Err != nil || tab.Usage().Spilled == 0 {
		t.Fatal(err, tab.Usage())
	}
	if got := fileOf(t, tab.View()); got != file(rows) {
		t.Error("not whole with room again")
	}
}

// TestHeapFileStaysSmall: what no View shows any more is given back and used again, however long rows change.
func TestHeapFileStaysSmall(t *testing.T) {
	tab, _ := bounded(t, 64<<10)
	rows, err := load(tab, 4000, "text")
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	var most int64
	for tx := range 6000 {
		i := r.IntN(4000)
		line := vote(i, strings.Repeat("x", r.IntN(8)))
		tab.Put(numbered(i), line)
		rows[string(numbered(i))] = string(line)
		if err := tab.Commit(Position{}); err != nil {
			t.Fatal(err)
		}
		if tx%50 == 0 {
			tab.View()
		}
		if tx%300 == 0 {
			runtime.GC()
			time.Sleep(time.Millisecond) // for the collector's cleanups, without which the file is only larger
		}
		info, err := tab.memory.heap.file.Stat()
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, info.Size())
	}
	if got := fileOf(t, tab.View()); got != file(rows) {
		t.Fatal("not whole")
	}
	size := tab.View().Bytes()
	t.Logf("at most %d bytes in the file for %d of rows, %d written", most, size, 6000*4096)
	if most > 8*size {
		t.Errorf("the file has grown to %d bytes for %d of rows", most, size)
	}
	tab.Truncate()
	if err := tab.Commit(Position{}); err != nil {
		t.Fatal(err)
	}
	heap := tab.memory.heap
	for until := time.Now().Add(time.Minute); ; {
		runtime.GC()
		info, err := heap.file.Stat()
		if err == nil && info.Size() == 0 && heap.size() == 0 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("%d bytes in use for no rows, %v", heap.size(), err)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestHeldViewIsWrittenOut: a View that a slow reader holds does not keep its rows in memory.
func TestHeldViewIsWrittenOut(t *testing.T) {
	const limit = 256 << 10
	tab, _ := bounded(t, limit)
	rows, err := load(tab, 500, "held") // all of which fit
	if err != nil || tab.Usage().Spilled > 0 {
		t.Fatal(err, tab.Usage())
	}
	v, held := tab.View(), maps.Clone(rows)
	for text, until := 0, time.Now().Add(time.Minute); ; text++ {
		for i := range 500 {
			line := vote(i, fmt.Sprint(text%10))
			tab.Put(numbered(i), line)
			rows[string(numbered(i))] = string(line)
		}
		if err := tab.Commit(Position{}); err != nil {
			t.Fatal(err)
		}
		tab.View()
		runtime.GC()
		var resident int
		for p := range v.Parts() {
			if p.s.content.Load() != nil {
				resident += p.Bytes()
			}
		}
		if resident <= limit/8 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("%d bytes of the old View stay in memory", resident)
		}
	}
	if got := fileOf(t, v); got != file(held) {
		t.Error("the old View is not what it was")
	}
	if got := fileOf(t, tab.View()); got != file(rows) {
		t.Error("the new View is wrong")
	}
}

// TestPastIsForgotten: with memory enough for all, the list of what has left the table does not grow for ever.
func TestPastIsForgotten(t *testing.T) {
	tab, _ := bounded(t, 1<<40)
	if _, err := load(tab, 500, "text"); err != nil {
		t.Fatal(err)
	}
	for tx := range 20 * leastOld {
		tab.Put(numbered(tx%500), vote(tx, "new"))
		if err := tab.Commit(Position{}); err != nil {
			t.Fatal(err)
		}
		tab.View() // so that the next change leaves a segment behind
		if tx%leastOld == 0 {
			runtime.GC()
		}
	}
	if n := len(tab.memory.old); n > 5*leastOld {
		t.Errorf("it has %d segments for %d commits", n, 20*leastOld)
	}
}

// TestLoadOfTheSameRows: a copy made anew changes only the parts of which rows changed.
func TestLoadOfTheSameRows(t *testing.T) {
	for _, limit := range []int64{1 << 40, 16 << 10} {
		tab, _ := bounded(t, limit)
		if _, err := load(tab, 2000, "same"); err != nil {
			t.Fatal(err)
		}
		ids := func() (list []uint64) {
			for p := range tab.View().Parts() {
				list = append(list, p.ID())
			}
			return list
		}
		before := ids()
		if _, err := load(tab, 2000, "same"); err != nil {
			t.Fatal(err)
		}
		if after := ids(); !slices.Equal(before, after) {
			t.Errorf("%d bytes: the parts were made anew: %d of %d", limit, len(after), len(before))
		}
		tab.Load(&rowjson.Shape{}, Origin{})
		for i := range 2000 {
			if i != 7 {
				tab.Put(numbered(i), vote(i, "same"))
			}
		}
		if err := tab.Commit(Position{}); err != nil {
			t.Fatal(err)
		}
		after := ids()
		if slices.Equal(before, after) || !slices.Equal(before[1:], after[1:]) || tab.View().Rows() != 1999 {
			t.Errorf("%d bytes: without one row: %d parts of %d, %d rows", limit, len(after), len(before), tab.View().Rows())
		}
	}
}
