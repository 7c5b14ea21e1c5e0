package snapshot

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"strings"
	"testing"

	"capture/snapshot/rowjson"
)

// TestViewTakesWhatChanged checks that a View shares its unchanged rows with the newest state. While a View is held, only
// the rows that change take additional memory, even if more Views are made.
func TestViewTakesWhatChanged(t *testing.T) {
	const n = 1000
	tab, rows := NewTable(), map[string]string{}
	line := func(i int, text string) []byte {
		return fmt.Appendf(nil, `{"id":%d,"text":"%s"}`, i, strings.Repeat(text, 3000))
	}
	put := func(i int, text string) {
		tab.Put(numbered(i), line(i, text))
		rows[string(numbered(i))] = string(line(i, text))
	}
	tab.Load(&rowjson.Shape{}, Origin{})
	for i := range n {
		put(i, "a")
	}
	if err := tab.Commit(Position{}); err != nil {
		t.Fatal(err)
	}
	heap := func() int64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc)
	}
	for round, text := range []string{"b", "c", "d"} {
		v, held := tab.View(), file(rows)
		tab.Commit(Position{}) // after this empty transaction, the Table itself no longer refers to the View
		before, changed := heap(), 0
		for pass := range 3 {
			for i := pass; i < n; i += 16 { // a page has about twenty rows, so a row in each page changes
				put(i, text)
				changed += len(line(0, text))
				if err := tab.Commit(Position{}); err != nil {
					t.Fatal(err)
				}
			}
			tab.View()
			heap()
		}
		// The memory may grow by 1.5 times the length of the changed rows, because the entries of the pages also take
		// memory.
		if grew := heap() - before; grew > int64(changed+changed/2) {
			t.Errorf("round %d: a View of %d bytes of which %d changed takes %d", round, v.Bytes(), changed, grew)
		}
		if fileOf(t, v) != held || fileOf(t, tab.View()) != file(rows) {
			t.Fatal("a View is wrong")
		}
	}
}

// TestLargeTransactionTakesWhatChanged changes half of the rows in one transaction, in key order, while a View is held. It
// checks that only the changed rows take additional memory. The View and the newest state must share the other half. The test
// also checks that each page is rebuilt only a few times, not once for each row.
func TestLargeTransactionTakesWhatChanged(t *testing.T) {
	tab := NewTable()
	shape := &rowjson.Shape{}
	line := func(i int, text string) []byte {
		return fmt.Appendf(nil, `{"id":%d,"text":"%s"}`, i, strings.Repeat(text, 1000+i%50))
	}
	const n = 5000
	rows := map[string]string{}
	tab.Load(shape, Origin{})
	for i := range n {
		tab.Put(numbered(i), line(i, "a"))
		rows[string(numbered(i))] = string(line(i, "a"))
	}
	if err := tab.Commit(Position{}); err != nil {
		t.Fatal(err)
	}
	v, held := tab.View(), file(rows)
	memory := func() (live, allocated int64) {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return int64(m.HeapAlloc), int64(m.TotalAlloc)
	}
	if !tab.LoadChanges(shape, Origin{}) {
		t.Fatal("no reload")
	}
	changed, put := int64(0), map[int][]byte{}
	for i := range n {
		if i%2 == 0 {
			tab.Keep(numbered(i))
		} else {
			put[i] = line(i, "b")
			rows[string(numbered(i))] = string(put[i])
			changed += int64(len(put[i]))
		}
	}
	liveBefore, allocatedBefore := memory()
	for i := 1; i < n; i += 2 {
		tab.Put(numbered(i), put[i])
	}
	live, allocated := memory()
	if grew := live - liveBefore; grew > changed+changed/4 {
		t.Errorf("%d bytes have changed; memory grew by %d", changed, grew)
	}
	// If each Put rebuilt its page, 64 kB would be allocated for each kB that has changed.
	if n := allocated - allocatedBefore; n > 10*v.Bytes() {
		t.Errorf("%d bytes were allocated to change half of %d", n, v.Bytes())
	}
	if got, err := tab.Get(numbered(n - 1)); err != nil || string(got) != string(put[n-1]) {
		t.Errorf("Get of the last row: %.40s, %v", got, err)
	}
	if err := tab.Commit(Position{}); err != nil {
		t.Fatal(err)
	}
	if fileOf(t, v) != held || fileOf(t, tab.View()) != file(rows) {
		t.Error("a View is wrong")
	}
}

// TestRollbackToRebasedVersion rolls back a transaction whose rebuilt pages share their buffers with the pages of a View
// (see rebase.go). It checks that the View does not change, and that the next transaction can change the View's rows.
func TestRollbackToRebasedVersion(t *testing.T) {
	t.Parallel()
	tab, rows := newTable(4096, 4), map[string]string{}
	put := func(i int, text string) {
		line := fmt.Sprintf(`{"id":%d,"text":"%s"}`, i, strings.Repeat(text, 100))
		tab.Put(numbered(i), []byte(line))
		rows[string(numbered(i))] = line
	}
	tab.Load(&rowjson.Shape{}, Origin{})
	for i := range 1000 {
		put(i, "a")
	}
	if err := tab.Commit(Position{}); err != nil {
		t.Fatal(err)
	}
	v, want := tab.View(), file(rows)
	tab.Load(&rowjson.Shape{}, Origin{})
	for i := range 1000 {
		tab.Put(numbered(i), fmt.Appendf(nil, `{"id":%d,"text":"%s"}`, i, strings.Repeat("b", 70+i%60)))
	}
	rebased := 0
	for p := range v.Parts() {
		if p.leaf.page.Load().ownLines != nil {
			rebased++
		}
	}
	if rebased == 0 {
		t.Error("no page of the View was rebased")
	}
	tab.Rollback()
	if fileOf(t, v) != want || tab.View() != v {
		t.Fatal("the View has changed")
	}
	for i := 0; i < 1000; i += 5 {
		put(i, "c")
	}
	if err := tab.Commit(Position{}); err != nil {
		t.Fatal(err)
	}
	if fileOf(t, v) != want || fileOf(t, tab.View()) != file(rows) {
		t.Error("a View is wrong")
	}
}

// TestViewsWhileWriting checks that readers see only whole transactions while the writer commits more transactions. The test
// is meant for the race detector.
func TestViewsWhileWriting(t *testing.T) {
	for _, limit := range []int64{0, 1 << 10, spillOld} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) { viewsWhileWriting(t, limit) })
	}
}

func viewsWhileWriting(t *testing.T, limit int64) {
	tab, padding := newTable(256, 4), ""
	switch {
	case limit > 0:
		tab.LimitMemory(limit, t.TempDir(), func(err error) { t.Error(err) })
	case limit == spillOld: // each page has several rows, so that parts of pages are spilled
		tab, padding = newTable(4096, 4), strings.Repeat("x", 300)
		spillOldRows(t, tab, 1, func(err error) { t.Error(err) })
	}
	tab.Load(&rowjson.Shape{}, Origin{})
	tab.Commit(Position{})
	// After each commit, one of the readers begins to read the newest View, while the writer continues with the next
	// transactions.
	var begin [4]chan bool
	errs := make(chan error, len(begin))
	for i := range begin {
		begin[i] = make(chan bool)
		go func() {
			var err error
			for range begin[i] {
				if err == nil {
					err = readOneTransaction(tab.View())
				}
			}
			errs <- err
		}()
	}
	transactions, spilled := 800, 0
	if limit != 0 {
		transactions = 300
	}
	for tx := range transactions {
		if limit == spillOld {
			tab.Load(&rowjson.Shape{}, Origin{})
		}
		for k := range 50 {
			tab.Put(binary.BigEndian.AppendUint64(nil, uint64(k*7919%97)), fmt.Appendf(nil, `{"tx":%d%s}`, tx, padding))
		}
		if tab.Usage().Spilled > 0 {
			spilled++
		}
		if err := tab.Commit(Position{}); err != nil {
			t.Fatal(err)
		}
		begin[tx%len(begin)] <- true
	}
	for i := range begin {
		close(begin[i])
	}
	for range begin {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
	if limit != 0 && spilled < transactions*9/10 {
		t.Errorf("rows were in the spill file in %d of %d transactions", spilled, transactions)
	}
}

// readOneTransaction returns an error unless all rows of v come from the same transaction.
func readOneTransaction(v *View) error {
	first, n := "", 0
	for row, err := range v.From(nil) {
		if err != nil {
			return err
		}
		if n++; n == 1 {
			first = string(row.Line)
		}
		if string(row.Line) != first {
			return fmt.Errorf("rows of two transactions: %s and %s", first, row.Line)
		}
	}
	if n != v.Rows() {
		return fmt.Errorf("%d rows, View says %d", n, v.Rows())
	}
	return nil
}
