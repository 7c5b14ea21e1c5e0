package snapshot

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"capture/internal/volume"
	"capture/snapshot/rowjson"
)

// spilling returns a Table that spills its old rows once all of them together take more than slack bytes. It also returns a
// channel that receives each error that the Table passes to onDamage.
func spilling(t *testing.T, slack int64) (tab *Table, damage chan error) {
	damage = make(chan error, 10)
	tab = NewTable()
	spillOldRows(t, tab, slack, func(err error) { damage <- err })
	return tab, damage
}

// oldRow returns the i-th row. Rows have about 1 kB.
func oldRow(i int, text string) []byte {
	return fmt.Appendf(nil, `{"id":%d,"text":"%s"}`, i, strings.Repeat(text, 1000+i%50))
}

// fillOld loads n rows and returns them by key.
func fillOld(t *testing.T, tab *Table, n int) map[string]string {
	t.Helper()
	rows := map[string]string{}
	tab.Load(&rowjson.Shape{}, Origin{})
	for i := range n {
		tab.Put(numbered(i), oldRow(i, "a"))
		rows[string(numbered(i))] = string(oldRow(i, "a"))
	}
	if err := tab.Commit(Position{}); err != nil {
		t.Fatal(err)
	}
	return rows
}

// changeOld runs a resync of n rows, and leaves the transaction open. It changes every oneOf-th row and keeps the others. The
// rows arrive in random order if random is set, and otherwise in the order of their keys.
func changeOld(t *testing.T, tab *Table, rows map[string]string, n, oneOf int, text string, random bool) {
	t.Helper()
	if !tab.LoadChanges(&rowjson.Shape{}, Origin{}) {
		t.Fatal("no reload")
	}
	order := rand.Perm(n)
	for i := range n {
		if random {
			i = order[i]
		}
		if i%oneOf != 0 {
			tab.Keep(numbered(i))
			continue
		}
		line := oldRow(i, text)
		tab.Put(numbered(i), line)
		rows[string(numbered(i))] = string(line)
	}
}

// TestOldRowsAreSpilled checks that a large transaction needs little more memory than the table. Until the Commit, its old
// rows are in the spill file, where readers find them.
func TestOldRowsAreSpilled(t *testing.T) {
	const n, slack = 3600, 128 << 10 // with 3600 rows, there are more than maxBufferedOps deletes and inserts, so the transaction is large
	for name, c := range map[string]struct {
		change  func(tab *Table, rows map[string]string)
		spilled float64 // maximum share of the table that is written to the spill file
	}{
		"a tenth changes":                {func(tab *Table, rows map[string]string) { changeOld(t, tab, rows, n, 10, "b", false) }, 0.2},
		"half changes":                   {func(tab *Table, rows map[string]string) { changeOld(t, tab, rows, n, 2, "b", false) }, 0.7},
		"half changes, in another order": {func(tab *Table, rows map[string]string) { changeOld(t, tab, rows, n, 2, "b", true) }, 1.3},
		"all change":                     {func(tab *Table, rows map[string]string) { changeOld(t, tab, rows, n, 1, "b", false) }, 1.2},
		"another copy of a new shape": {func(tab *Table, rows map[string]string) {
			tab.Load(&rowjson.Shape{Fingerprint: "new"}, Origin{})
			for i := range n {
				tab.Put(numbered(i), oldRow(i, "b"))
				rows[string(numbered(i))] = string(oldRow(i, "b"))
			}
		}, 1.2},
		"deletes and inserts": {func(tab *Table, rows map[string]string) {
			for i := range n {
				if i%3 > 0 {
					tab.Delete(numbered(i))
					delete(rows, string(numbered(i)))
				}
			}
			for i := n; i < n*5/3; i++ {
				tab.Put(numbered(i), oldRow(i, "b"))
				rows[string(numbered(i))] = string(oldRow(i, "b"))
			}
		}, 1.2},
	} {
		t.Run(name, func(t *testing.T) {
			tab, damage := spilling(t, slack)
			rows := fillOld(t, tab, n)
			v, held := tab.View(), file(rows)
			before := liveHeap()
			c.change(tab, rows)
			fresh := 0 // bytes of the test's own copy of the new rows
			for _, line := range rows {
				if strings.Contains(line, "b") {
					fresh += len(line)
				}
			}
			spilled := tab.Usage().Spilled
			if grew := liveHeap() - before - int64(fresh); grew > v.Bytes()/10 {
				t.Errorf("memory grew by %d bytes for a table of %d", grew, v.Bytes())
			}
			if spilled == 0 || float64(spilled) > c.spilled*float64(v.Bytes()) {
				t.Errorf("%d bytes are in the spill file for a table of %d", spilled, v.Bytes())
			}
			if tab.View() != v || fileOf(t, v) != held {
				t.Fatal("the View has changed before the Commit")
			}
			checkOld(t, v, held)
			if err := tab.Commit(Position{}); err != nil {
				t.Fatal(err)
			}
			if fileOf(t, tab.View()) != file(rows) || fileOf(t, v) != held {
				t.Fatal("a View is wrong after the Commit")
			}
			v = nil
			for until := time.Now().Add(time.Minute); tab.Usage().Spilled > 0; time.Sleep(time.Millisecond) {
				runtime.GC()
				if time.Now().After(until) {
					t.Fatalf("%d bytes stay in the spill file", tab.Usage().Spilled)
				}
			}
			if len(damage) > 0 {
				t.Error(<-damage)
			}
		})
	}
}

// TestSweepSpillsNothing checks that a resync that deletes most rows moves nothing to the spill file, because old and new
// rows together are not larger than the table was.
func TestSweepSpillsNothing(t *testing.T) {
	const n = 6000
	tab, damage := spilling(t, 256<<10)
	rows := fillOld(t, tab, n)
	v, held := tab.View(), file(rows)
	if !tab.LoadChanges(&rowjson.Shape{}, Origin{}) {
		t.Fatal("no reload")
	}
	for i := range n {
		if i < n/4 || i%2 == 0 && i < n/2 {
			tab.Keep(numbered(i))
		} else {
			delete(rows, string(numbered(i)))
		}
	}
	if err := tab.Commit(Position{}); err != nil {
		t.Fatal(err)
	}
	if f := tab.tree.old.shown.Load(); f != nil {
		t.Errorf("%d bytes were written to the spill file", f.Size())
	}
	if fileOf(t, tab.View()) != file(rows) || fileOf(t, v) != held || tab.View().Rows() != len(rows) {
		t.Error("a View is wrong")
	}
	if len(damage) > 0 {
		t.Error(<-damage)
	}
}

func liveHeap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// checkOld checks that From, Before, AppendTo and Get return the rows of v as they are in want.
func checkOld(t *testing.T, v *View, want string) {
	t.Helper()
	lines := strings.Split(want, "\n")
	lines = lines[1 : len(lines)-2]
	i := 0
	for row, err := range v.From(nil) {
		if err != nil || string(row.Line) != strings.TrimSuffix(lines[i], ",") {
			t.Fatalf("row %d is %.40s, %v", i, row.Line, err)
		}
		i++
	}
	for row, err := range v.Before(nil) {
		i--
		if err != nil || string(row.Line) != strings.TrimSuffix(lines[i], ",") {
			t.Fatalf("row %d is %.40s, %v", i, row.Line, err)
		}
	}
	var b []byte
	for p := range v.Parts() {
		var err error
		if b, err = p.AppendTo(b); err != nil {
			t.Fatal(err)
		}
	}
	if string(b) != strings.Join(lines, "\n")+",\n" {
		t.Fatal("AppendTo gives other lines")
	}
	if line, err := v.Get(numbered(6)); err != nil || string(line) != strings.TrimSuffix(lines[6], ",") {
		t.Fatalf("Get: %.40s, %v", line, err)
	}
}

// TestSmallTransactionsSpillNothing checks that small transactions move nothing to the spill file. A large transaction in a
// small table must not move anything either.
func TestSmallTransactionsSpillNothing(t *testing.T) {
	const n = 4000
	tab, _ := spilling(t, leastSlack)
	rows := fillOld(t, tab, n)
	tab.View()
	changeOld(t, tab, rows, n, 1, "b", false)
	if err := tab.Commit(Position{}); err != nil {
		t.Fatal(err)
	}
	tab.tree.old.least = 1
	tab.View()
	for i := range n {
		tab.Put(numbered(i), oldRow(i, "c"))
		if i%100 == 99 {
			if err := tab.Commit(Position{}); err != nil {
				t.Fatal(err)
			}
		}
	}
	if tab.tree.spill.file != nil {
		t.Error("a spill file was opened")
	}
}

// TestRollbackOfSpilledRows rolls back a transaction that has moved rows of the table to the spill file. It checks that
// these rows belong to the table again, that small transactions can change them, and that a later Load brings them back
// into memory.
func TestRollbackOfSpilledRows(t *testing.T) {
	const n = 800
	for _, random := range []bool{false, true} {
		for oneOf := 1; oneOf <= 4; oneOf++ {
			tab, damage := spilling(t, 1)
			rows := fillOld(t, tab, n)
			v, held := tab.View(), file(rows)
			for range 2 {
				changeOld(t, tab, maps.Clone(rows), n, oneOf, "b", random)
				if tab.Usage().Spilled == 0 {
					t.Fatal("nothing was spilled")
				}
				tab.Rollback()
				if tab.View() != v || fileOf(t, v) != held {
					t.Fatal("the View is wrong after the Rollback")
				}
			}
			for i := 0; i < n; i += 100 {
				if line, err := tab.Get(numbered(i + 4)); err != nil || string(line) != rows[string(numbered(i+4))] {
					t.Fatalf("Get: %.40s, %v", line, err)
				}
				tab.Put(numbered(i), oldRow(i, "c"))
				rows[string(numbered(i))] = string(oldRow(i, "c"))
				if err := tab.Commit(Position{}); err != nil {
					t.Fatal(err)
				}
			}
			if fileOf(t, tab.View()) != file(rows) || fileOf(t, v) != held {
				t.Fatal("a View is wrong after small transactions")
			}
			changeOld(t, tab, rows, n, 7, "d", random)
			if err := tab.Commit(Position{}); err != nil {
				t.Fatal(err)
			}
			if fileOf(t, tab.View()) != file(rows) || fileOf(t, v) != held {
				t.Fatal("a View is wrong after a Load")
			}
			for p := range tab.View().Parts() {
				if page := p.leaf.page.Load(); page == nil || page.spilled != nil {
					t.Fatal("rows of the table stay in the spill file")
				}
			}
			if len(damage) > 0 {
				t.Error(<-damage)
			}
		}
	}
}

// TestOldRowsCannotBeSpilled checks that old rows stay in memory if they cannot be moved to the spill file, and that the
// transaction succeeds. Usage must return the reason until a minute after the transaction, or until a later transaction can
// spill its old rows.
func TestOldRowsCannotBeSpilled(t *testing.T) {
	const n = 2000
	for name, fail := range map[string]func(t *testing.T, o *oldRows){
		"no folder": func(_ *testing.T, o *oldRows) { o.folder = filepath.Join(o.folder, "missing") },
		"full volume": func(_ *testing.T, o *oldRows) {
			o.measure = func(string) (volume.Usage, error) { return volume.Usage{Size: 100 << 20, Free: 20<<20 + 1}, nil }
		},
		"no room for two versions of the file": func(_ *testing.T, o *oldRows) {
			o.measure = func(string) (volume.Usage, error) { return volume.Usage{Size: 5 << 20, Free: 4 << 20}, nil }
		},
		"unknown room": func(_ *testing.T, o *oldRows) {
			o.measure = func(string) (volume.Usage, error) { return volume.Usage{}, errors.New("unknown") }
		},
	} {
		t.Run(name, func(t *testing.T) {
			tab, _ := spilling(t, 1)
			fail(t, tab.tree.old)
			rows := fillOld(t, tab, n)
			v, held := tab.View(), file(rows)
			changeOld(t, tab, rows, n, 2, "b", false)
			if u := tab.Usage(); !tab.tree.old.failed || u.Spilled > 0 || u.Err == nil || !strings.Contains(u.Err.Error(), tab.tree.old.folder) {
				t.Errorf("usage: %+v", u)
			}
			if err := tab.Commit(Position{}); err != nil {
				t.Fatal(err)
			}
			if fileOf(t, tab.View()) != file(rows) || fileOf(t, v) != held {
				t.Error("a View is wrong")
			}
			put := func() { // a small transaction
				tab.Put(numbered(0), oldRow(0, "c"))
				if err := tab.Commit(Position{}); err != nil {
					t.Fatal(err)
				}
			}
			put()
			stuck := *tab.tree.old.stuck.Load()
			if put(); tab.Usage().Err == nil || *tab.tree.old.stuck.Load() != stuck {
				t.Errorf("a small transaction has changed what is shown: %v", tab.Usage().Err)
			}
			stuck.ended = stuck.ended.Add(-stuckShown)
			if tab.tree.old.stuck.Store(&stuck); tab.Usage().Err != nil {
				t.Errorf("a minute later: %v", tab.Usage().Err)
			}
			changeOld(t, tab, rows, n, 2, "d", false)
			if tab.Usage().Err == nil {
				t.Error("another transaction is not shown")
			}
			tab.Rollback()
			if tab.Usage().Err == nil {
				t.Error("a transaction that was rolled back is not shown")
			}
			tab.tree.old.folder, tab.tree.old.measure = t.TempDir(), func(string) (volume.Usage, error) {
				return volume.Usage{Size: 1 << 40, Free: 1 << 40}, nil
			}
			changeOld(t, tab, rows, n, 2, "e", false)
			if u := tab.Usage(); u.Spilled == 0 || u.Err != nil {
				t.Errorf("with room again: %+v", u)
			}
			if err := tab.Commit(Position{}); err != nil || tab.Usage().Err != nil {
				t.Error(err, tab.Usage().Err)
			}
		})
	}
}

// TestSpilledOldRowsDamaged checks that readers of old rows get an error, never a wrong row, if the spill file is damaged.
// After a Rollback, the damaged rows are rows of the table again. Transactions that need them must then fail, and the next
// Load must store all rows again.
func TestSpilledOldRowsDamaged(t *testing.T) {
	const n = 4000
	tab, damage := spilling(t, 1)
	rows := fillOld(t, tab, n)
	v := tab.View()
	old := maps.Clone(rows)
	changeOld(t, tab, maps.Clone(rows), n, 2, "b", true)
	if f, _ := spillFile(t, tab); f.Truncate(0) != nil {
		t.Fatal("the spill file cannot be damaged")
	}
	wrong, failed := 0, 0
	for k, want := range old {
		if line, err := v.Get(rowjson.Key(k)); err != nil {
			failed++
		} else if string(line) != want {
			wrong++
		}
	}
	if wrong > 0 || failed == 0 || len(damage) != 1 {
		t.Errorf("%d rows are wrong and %d cannot be read; damage was reported %d times", wrong, failed, len(damage))
	}
	var b bytes.Buffer
	if _, err := v.WriteTo(&b); err == nil {
		t.Error("WriteTo succeeds")
	}
	for p := range v.Parts() {
		if b, err := p.AppendTo([]byte("before")); err != nil && string(b) != "before" {
			t.Fatalf("AppendTo leaves %q", b)
		}
	}
	tab.Rollback()
	for i := range n {
		tab.Put(numbered(i), oldRow(i, "c"))
	}
	if tab.Commit(Position{}) == nil || tab.View() != v {
		t.Error("a large transaction over unreadable rows is committed")
	}
	failed = 0
	for i := range n {
		tab.Put(numbered(i), oldRow(i, "c"))
		if err := tab.Commit(Position{}); err != nil {
			failed++
			continue
		}
		old[string(numbered(i))] = string(oldRow(i, "c"))
	}
	if failed == 0 || tab.View() == nil {
		t.Errorf("%d small transactions fail", failed)
	}
	if tab.LoadChanges(&rowjson.Shape{}, Origin{}) {
		t.Fatal("a resync of unreadable rows")
	}
	rows = fillOld(t, tab, n)
	if fileOf(t, tab.View()) != file(rows) {
		t.Error("the View after a Load is wrong")
	}
	changeOld(t, tab, rows, n, 2, "d", false)
	if tab.Usage().Spilled == 0 {
		t.Error("a new spill file is not used")
	}
	if err := tab.Commit(Position{}); err != nil || fileOf(t, tab.View()) != file(rows) {
		t.Errorf("the View after a resync is wrong: %v", err)
	}
}
