package snapshot

import (
	"errors"
	"fmt"
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
	"capture/snapshot/spill"
)

// bounded returns a Table that has small pages and a memory limit, and a channel that receives each error that the Table
// passes to onDamage.
func bounded(t *testing.T, limit int64) (tab *Table, damage chan error) {
	damage = make(chan error, 10)
	tab = newTable(4096, 4)
	tab.LimitMemory(limit, t.TempDir(), func(err error) { damage <- err })
	return tab, damage
}

// spillFile opens the nameless spill file of a Table. It also returns the Table's own descriptor of this file.
func spillFile(t *testing.T, tab *Table) (file *os.File, fd int) {
	t.Helper()
	fds, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range fds {
		name := "/proc/self/fd/" + entry.Name()
		target, _ := os.Readlink(name)
		if !strings.HasPrefix(target, tab.tree.spill.folder+"/") || !strings.HasSuffix(target, " (deleted)") {
			continue
		}
		if file, err = os.OpenFile(name, os.O_RDWR, 0); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { file.Close() })
		fmt.Sscan(entry.Name(), &fd)
		return file, fd
	}
	t.Fatal("there is no such file")
	return nil, 0
}

func vote(i int, text string) []byte {
	return fmt.Appendf(nil, `{"id":%d,"text":"%s"}`, i, strings.Repeat(text, 50))
}

// load fills tab with n rows and returns them by key.
func load(tab *Table, n int, text string) (map[string]string, error) {
	rows := map[string]string{}
	tab.Load(&rowjson.Shape{}, Origin{})
	for i := range n {
		tab.Put(numbered(i), vote(i, text))
		rows[string(numbered(i))] = string(vote(i, text))
	}
	return rows, tab.Commit(Position{})
}

// TestCountKeysReadsPagesOnce checks that CountKeys reads only the keys of each page in the spill file, and reads them at
// most once.
func TestCountKeysReadsPagesOnce(t *testing.T) {
	tab, damage := bounded(t, 8<<10)
	if _, err := load(tab, 2000, "text"); err != nil {
		t.Fatal(err)
	}
	v := tab.View()
	var keys []rowjson.Key
	for i := range 3000 {
		keys = append(keys, numbered(i))
	}
	read := testing.AllocsPerRun(1, func() {
		if n, err := v.CountKeys(keys); err != nil || n != 2000 {
			t.Errorf("%d keys, %v", n, err)
		}
	})
	pages := 0
	for range v.Parts() {
		pages++
	}
	if most := 4 * pages; int(read) > most || pages > 1000 {
		t.Errorf("%v allocations to read the keys of %d pages", read, pages)
	}
	f, _ := spillFile(t, tab)
	if err := f.Truncate(0); err != nil {
		t.Fatal(err)
	}
	if _, err := v.CountKeys(keys); err == nil || len(damage) != 1 {
		t.Errorf("%v; damage was reported %d times", err, len(damage))
	}
}

// TestSpillFileFull checks what happens while pages cannot be written to the spill file. The pages may then exceed the
// memory limit by 1/overdraft of the limit. A transaction that needs more memory fails, and the committed state does not
// change. Once the volume has room again, transactions succeed.
func TestSpillFileFull(t *testing.T) {
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
	cache := tab.tree.cache
	if cache.file, err = spill.Open(cache.folder, nil); err != nil {
		t.Fatal(err)
	}
	if _, fd := spillFile(t, tab); unix.Dup3(int(full.Fd()), fd, 0) != nil {
		t.Fatal("the file cannot be replaced")
	}
	put := func(from, to int) error {
		for i := from; i < to; i++ {
			tab.Put(numbered(i), vote(i, "more"))
		}
		return tab.Commit(Position{})
	}
	for name, fail := range map[string]func() error{
		"a large transaction": func() error { return put(0, maxBufferedOps+1000) },
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
		if !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), cache.folder) {
			t.Errorf("%s: %v", name, err)
		}
		if got := fileOf(t, tab.View()); got != file(rows) {
			t.Fatalf("%s: the committed state has changed", name)
		}
	}
	if cache.resident > 64<<10*3/2 {
		t.Errorf("%d bytes in memory", cache.resident)
	}
	cache.file, cache.retryAt = nil, time.Time{} // the next eviction opens a new spill file, which is not full
	if rows, err = load(tab, 2000, "new"); err != nil || tab.Usage().Err != nil || tab.Usage().Spilled == 0 {
		t.Fatal(err, tab.Usage())
	}
	if got := fileOf(t, tab.View()); got != file(rows) {
		t.Error("the View with room again is wrong")
	}
}

// TestSpillFileStaysSmall checks that the space of pages that no View shows is reused, so that the file does not grow while
// rows change.
func TestSpillFileStaysSmall(t *testing.T) {
	tab, _ := bounded(t, 64<<10)
	const n, changes = 2000, 3000
	rows, err := load(tab, n, "text")
	if err != nil {
		t.Fatal(err)
	}
	f, _ := spillFile(t, tab)
	r := rand.New(rand.NewPCG(1, 2))
	var most int64
	for tx := range changes {
		i := r.IntN(n)
		line := vote(i, strings.Repeat("x", r.IntN(8)))
		tab.Put(numbered(i), line)
		rows[string(numbered(i))] = string(line)
		if err := tab.Commit(Position{}); err != nil {
			t.Fatal(err)
		}
		if tx%50 == 0 {
			tab.View()
		}
		if tx%150 == 0 {
			runtime.GC()
			time.Sleep(time.Millisecond) // lets the cleanups run; without them the file is larger
		}
		info, err := f.Stat()
		if err != nil {
			t.Fatal(err)
		}
		most = max(most, info.Size())
	}
	if got := fileOf(t, tab.View()); got != file(rows) {
		t.Fatal("the View is wrong")
	}
	size := tab.View().Bytes()
	t.Logf("at most %d bytes in the file for %d of rows, %d written", most, size, changes*4096)
	if most > 8*size {
		t.Errorf("the file has grown to %d bytes for %d of rows", most, size)
	}
	tab.Truncate()
	if err := tab.Commit(Position{}); err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(time.Minute); ; {
		runtime.GC()
		info, err := f.Stat()
		if err == nil && info.Size() == 0 && tab.tree.cache.file.Size() == 0 {
			break
		}
		if time.Now().After(until) {
			t.Fatalf("%d bytes in use for no rows, %v", tab.tree.cache.file.Size(), err)
		}
		time.Sleep(time.Millisecond)
	}
}

// TestHeldViewIsEvicted checks that a View does not keep its rows in memory while a slow reader holds the View.
func TestHeldViewIsEvicted(t *testing.T) {
	const limit = 256 << 10
	tab, _ := bounded(t, limit)
	rows, err := load(tab, 500, "held") // all rows fit into memory
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
			if p.leaf.page.Load() != nil {
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

// TestRetiredListIsPruned checks that the list of retired pages does not grow without bound if there is enough memory for
// all rows.
func TestRetiredListIsPruned(t *testing.T) {
	tab, _ := bounded(t, 1<<40)
	if _, err := load(tab, 500, "text"); err != nil {
		t.Fatal(err)
	}
	const commits = 10 * leastPruned
	for tx := range commits {
		tab.Put(numbered(tx%500), vote(tx, "new"))
		if err := tab.Commit(Position{}); err != nil {
			t.Fatal(err)
		}
		tab.View() // so that the next change retires a leaf
		if tx%leastPruned == 0 {
			runtime.GC()
		}
	}
	if n := len(tab.tree.cache.retired.list); n > 5*leastPruned {
		t.Errorf("it has %d leaves for %d commits", n, commits)
	}
}

// TestReloadOfTheSameRows checks that a second Load changes only the Parts whose rows have changed.
func TestReloadOfTheSameRows(t *testing.T) {
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
			t.Errorf("%d bytes: the parts are new: %d of %d", limit, len(after), len(before))
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
