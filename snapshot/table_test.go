package snapshot

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"capture/snapshot/rowjson"
)

// file returns the file of rows, which are lines by key.
func file(rows map[string]string) string {
	if len(rows) == 0 {
		return "[]\n"
	}
	var lines []string
	for _, k := range slices.Sorted(maps.Keys(rows)) {
		lines = append(lines, rows[k])
	}
	return "[\n" + strings.Join(lines, ",\n") + "\n]\n"
}

func fileOf(t *testing.T, v *View) string {
	t.Helper()
	var b bytes.Buffer
	n, err := v.WriteTo(&b)
	if err != nil || n != int64(b.Len()) || n != v.Bytes() {
		t.Fatalf("WriteTo: %d of %d bytes, View.Bytes %d: %v", n, b.Len(), v.Bytes(), err)
	}
	return b.String()
}

// TestTableEqualsModel compares random transactions, some of them rolled back, with a map. Old Views must not change.
func TestTableEqualsModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	// A delete within a reload once forgot that a row had been seen which it moved to another leaf.
	t.Run("1795469545025188281", func(t *testing.T) { model(t, 1795469545025188281, 0) })
	for round := range 30 {
		seed := seed + uint64(round)
		t.Run(fmt.Sprint(seed), func(t *testing.T) { model(t, seed, 0) })
	}
}

// TestTableEqualsModelSpilled does the same with less memory than the rows take, down to one byte.
func TestTableEqualsModelSpilled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	for round := range 12 {
		seed := seed + uint64(round)
		limit := []int64{1, 2 << 10, 16 << 10}[round%3]
		t.Run(fmt.Sprint(seed, "/", limit), func(t *testing.T) { model(t, seed, limit) })
	}
}

func model(t *testing.T, seed uint64, limit int64) {
	r := rand.New(rand.NewPCG(seed, 1))
	tab := newTable([]int{64, 200, 4096}[r.IntN(3)], []int{2, 3, 16}[r.IntN(3)])
	if limit > 0 {
		tab.LimitMemory(limit, t.TempDir(), func(err error) { t.Error(err) })
	}
	if tab.View() != nil {
		t.Fatal("a View before the first Commit")
	}
	keys := 1 + r.IntN(400)
	key := func() rowjson.Key {
		if r.IntN(4) == 0 { // of other lengths, with common prefixes
			return append([]byte("prefix-of-many-bytes"), fmt.Sprint(r.IntN(keys))...)
		}
		return binary.BigEndian.AppendUint64(nil, uint64(r.IntN(keys)))
	}
	committed := map[string]string{}
	type old struct {
		v    *View
		want string
	}
	var views []old
	shape := &rowjson.Shape{Table: "t"}
	tab.Load(shape, Origin{})
	tab.Commit(Position{})
	for tx := range 120 {
		rows, loading := maps.Clone(committed), false
		if r.IntN(25) == 0 {
			if r.IntN(2) == 0 {
				shape = &rowjson.Shape{Table: "t", Fingerprint: fmt.Sprint(tx)}
			}
			tab.Load(shape, Origin{})
			for _, k := range slices.Sorted(maps.Keys(rows)) { // most of it unchanged
				if c := r.IntN(10); c == 0 {
					delete(rows, k)
				} else {
					if c == 1 {
						rows[k] = fmt.Sprintf(`{"new":%d}`, r.Int())
					}
					tab.Put(rowjson.Key(k), []byte(rows[k]))
				}
			}
			loading = true
		}
		size := r.IntN(30)
		if r.IntN(30) == 0 {
			size = maxBufferedOps + r.IntN(100) // past what is buffered
		}
		for range size {
			k := key()
			switch c := r.IntN(100); {
			case c < 60:
				line := fmt.Sprintf(`{"k":%d,"v":"%s"}`, r.Int(), strings.Repeat("x", r.IntN(80)))
				tab.Put(k, []byte(line))
				rows[string(k)] = line
			case c < 99:
				tab.Delete(k)
				delete(rows, string(k))
			default:
				tab.Truncate()
				clear(rows)
			}
			if got, err := tab.Get(k); !loading && string(got) != rows[string(k)] || err != nil {
				t.Fatalf("tx %d: Get: %q, %v, want %q", tx, got, err, rows[string(k)])
			}
			if r.IntN(size) == 0 {
				if got, want := fileOf(t, tab.View()), file(committed); got != want {
					t.Fatalf("tx %d: half of a transaction is visible:\n%s\nwant\n%s", tx, got, want)
				}
			}
		}
		if r.IntN(5) == 0 {
			inPlace := tab.inPlace()
			tab.Rollback()
			if inPlace {
				checkFrozen(t, tab)
			}
		} else {
			if err := tab.Commit(Position{LSN: 1}); err != nil {
				t.Fatal(err)
			}
			committed = rows
		}
		checkMemory(t, tab)
		if r.IntN(3) == 0 {
			v := tab.View()
			views = append(views, old{v, file(committed)})
			check(t, r, v, committed, key)
		}
	}
	for i, o := range views {
		if got := fileOf(t, o.v); got != o.want {
			t.Fatalf("view %d changed after it was taken:\n%s\nwant\n%s", i, got, o.want)
		}
	}
}

func check(t *testing.T, r *rand.Rand, v *View, rows map[string]string, key func() rowjson.Key) {
	t.Helper()
	got := fileOf(t, v)
	if want := file(rows); got != want {
		t.Fatalf("file:\n%s\nwant\n%s", got, want)
	}
	if !json.Valid([]byte(got)) || v.Rows() != len(rows) {
		t.Fatalf("invalid JSON, or %d rows where %d are", v.Rows(), len(rows))
	}
	all := slices.Sorted(maps.Keys(rows))
	k := key()
	i, found := slices.BinarySearch(all, string(k))
	if line, err := v.Get(k); err != nil || found != (line != nil) || string(line) != rows[string(k)] {
		t.Fatalf("Get(%q): %q, %v", k, line, err)
	}
	down := slices.Clone(all[:i])
	slices.Reverse(down)
	if found {
		i++
	}
	up := all[i:]
	if r.IntN(4) == 0 {
		k, up, down = nil, all, slices.Clone(all)
		slices.Reverse(down)
	}
	for name, c := range map[string]struct {
		got  func(func(Row, error) bool)
		want []string
	}{"From": {v.From(k), up}, "Before": {v.Before(k), down}} {
		n := 0
		for row, err := range c.got {
			if err != nil || n >= len(c.want) || string(row.Key) != c.want[n] || string(row.Line) != rows[string(row.Key)] {
				t.Fatalf("%s(%q): row %d is %q, %v", name, k, n, row.Key, err)
			}
			n++
		}
		if n != len(c.want) {
			t.Fatalf("%s(%q): %d rows, want %d", name, k, n, len(c.want))
		}
	}
}

// checkFrozen checks that the Table may change none of its groups and leaves in place.
func checkFrozen(t *testing.T, tab *Table) {
	t.Helper()
	for _, g := range tab.tree.groups {
		if g.epoch >= tab.tree.epoch || slices.ContainsFunc(g.leaves, func(l *leaf) bool { return l.epoch >= tab.tree.epoch }) {
			t.Fatalf("the tree, of epoch %d, may change in place what a View shows", tab.tree.epoch)
		}
	}
}

// checkMemory checks how many bytes of pages the cache believes to have in memory.
func checkMemory(t *testing.T, tab *Table) {
	t.Helper()
	c := tab.tree.cache
	if c == nil {
		return
	}
	believed, retired := c.resident, c.retired
	c.reset(tab.tree.groups)
	if c.resident != believed {
		t.Fatalf("%d bytes in memory, believed to be %d", c.resident, believed)
	}
	c.retired = retired
	if most := max(c.pageLimit(tab.tree.live), 4*int64(tab.tree.pageBytes)); believed > most+most/4 {
		t.Fatalf("%d bytes in memory where %d are allowed", believed, most)
	}
}

// TestPutRefusesLongRow: a row that does not fit into a page's offsets makes its transaction fail, however that is applied, and the
// committed state stays.
func TestPutRefusesLongRow(t *testing.T) {
	t.Parallel()
	const most = 1000
	longest := []byte(`{"v":"` + strings.Repeat("x", most-len(`{"v":""}`)-8) + `"}`)
	tooLong := append(bytes.Clone(longest), ' ')
	tab := newTable(200, 3)
	tab.maxRowBytes = most
	key := func(i int) rowjson.Key { return binary.BigEndian.AppendUint64(nil, uint64(i)) }
	tab.Load(&rowjson.Shape{}, Origin{})
	tab.Put(key(1), longest)
	if err := tab.Commit(Position{}); err != nil {
		t.Fatal(err)
	}
	v := tab.View()
	for name, begin := range map[string]func(){
		"small": func() {},
		"large": func() {
			for i := range maxBufferedOps + 1 {
				tab.Put(key(i), []byte("{}"))
			}
		},
		"load": func() { tab.Load(&rowjson.Shape{Fingerprint: "other"}, Origin{}) },
	} {
		begin()
		tab.Put(key(2), []byte("{}"))
		if err := tab.Err(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		tab.Put(key(1), tooLong)
		tab.Put(key(3), []byte("{}"))
		if err := tab.Err(); err == nil || !strings.Contains(err.Error(), "1001 bytes") {
			t.Errorf("%s: Err = %v after Put", name, err)
		}
		if err := tab.Commit(Position{}); err == nil || tab.View() != v {
			t.Errorf("%s: Commit = %v, and the View is another", name, err)
		}
	}
	tab.Put(key(2), longest)
	if err := tab.Commit(Position{}); err != nil || tab.View().Rows() != 2 {
		t.Errorf("the next transaction: %v, %d rows", err, tab.View().Rows())
	}
}

// TestLongRows puts rows much larger than a page among small ones: no page has more room than the longest row and a constant.
func TestLongRows(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 3))
	const longest, pageBytes = 200_000, 4096
	const slack = 2*pageBytes + 16<<10 + 8<<10 // small rows, what growCap adds, and what Go rounds up
	tab, rows := newTable(pageBytes, 3), map[string]string{}
	tab.Load(&rowjson.Shape{}, Origin{})
	for tx := range 2000 {
		k := binary.BigEndian.AppendUint64(nil, uint64(r.IntN(60)))
		if r.IntN(3) == 0 {
			tab.Delete(k)
			delete(rows, string(k))
		} else {
			n := []int{r.IntN(300), r.IntN(2 * pageBytes), r.IntN(longest), longest - 10}[r.IntN(4)]
			line := `{"v":"` + strings.Repeat("x", n) + `"}`
			tab.Put(k, []byte(line))
			rows[string(k)] = line
		}
		for _, g := range tab.tree.groups {
			for _, l := range g.leaves {
				if p := l.page.Load(); cap(p.lines) > longest+slack {
					t.Fatalf("change %d: a page of %d rows has room for %d bytes", tx, l.rows, cap(p.lines))
				}
			}
		}
		if r.IntN(4) == 0 {
			if err := tab.Commit(Position{}); err != nil {
				t.Fatal(err)
			}
			if tx%20 == 0 {
				if got := fileOf(t, tab.View()); got != file(rows) {
					t.Fatal("the View is wrong")
				}
			}
		}
	}
}

// TestViewTakesWhatChanged: a View that is held while one row of each page changes keeps private copies of those rows, and shares the
// others with the newest state, even if other Views are taken meanwhile.
func TestViewTakesWhatChanged(t *testing.T) {
	tab, rows := NewTable(), map[string]string{}
	line := func(i int, text string) []byte {
		return fmt.Appendf(nil, `{"id":%d,"text":"%s"}`, i, strings.Repeat(text, 3000))
	}
	put := func(i int, text string) {
		tab.Put(numbered(i), line(i, text))
		rows[string(numbered(i))] = string(line(i, text))
	}
	tab.Load(&rowjson.Shape{}, Origin{})
	for i := range 8000 {
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
		tab.Commit(Position{}) // the Table itself no longer has the View
		before, changed := heap(), 0
		for pass := range 3 {
			for i := pass; i < 8000; i += 16 { // in each of the pages, which hold some twenty
				put(i, text)
				changed += len(line(0, text))
				if err := tab.Commit(Position{}); err != nil {
					t.Fatal(err)
				}
			}
			tab.View()
			heap()
		}
		// The entries of the pages come on top.
		if grew := heap() - before; grew > int64(changed+changed/2) {
			t.Errorf("round %d: a View of %d bytes of which %d changed takes %d", round, v.Bytes(), changed, grew)
		}
		if fileOf(t, v) != held || fileOf(t, tab.View()) != file(rows) {
			t.Fatal("a View is wrong")
		}
	}
}

// TestViewsWhileWriting: readers see whole transactions only, while others are committed. It is meant for the race detector.
func TestViewsWhileWriting(t *testing.T) {
	for _, limit := range []int64{0, 1 << 10} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) { viewsWhileWriting(t, limit) })
	}
}

func viewsWhileWriting(t *testing.T, limit int64) {
	tab := newTable(256, 4)
	if limit > 0 {
		tab.LimitMemory(limit, t.TempDir(), nil)
	}
	tab.Load(&rowjson.Shape{}, Origin{})
	tab.Commit(Position{})
	done := make(chan struct{})
	errs := make(chan error, 4)
	for range 4 {
		go func() {
			for {
				select {
				case <-done:
					errs <- nil
					return
				default:
				}
				v, first, n := tab.View(), "", 0
				for row, err := range v.From(nil) {
					if first == "" {
						first = string(row.Line)
					}
					if n++; err != nil || string(row.Line) != first {
						errs <- fmt.Errorf("rows of two transactions: %s and %s, %v", first, row.Line, err)
						return
					}
				}
				if n != v.Rows() {
					errs <- fmt.Errorf("%d rows, View says %d", n, v.Rows())
					return
				}
			}
		}()
	}
	transactions := 3000
	if limit > 0 {
		transactions = 600
	}
	for tx := range transactions {
		for k := range 50 {
			tab.Put(binary.BigEndian.AppendUint64(nil, uint64(k*7919%97)), fmt.Appendf(nil, `{"tx":%d}`, tx))
		}
		tab.Commit(Position{})
	}
	close(done)
	for range 4 {
		if err := <-errs; err != nil {
			t.Fatal(err)
		}
	}
}

func BenchmarkTable(b *testing.B) {
	line := []byte(`{"v":"` + strings.Repeat("x", 300) + `"}`)
	fill := func(rows int) *Table {
		tab := NewTable()
		tab.Load(&rowjson.Shape{}, Origin{})
		var k [8]byte
		for i := range rows {
			binary.BigEndian.PutUint64(k[:], uint64(i))
			tab.Put(k[:], line)
		}
		tab.Commit(Position{})
		return tab
	}
	b.Run("Load", func(b *testing.B) {
		b.ReportAllocs()
		b.SetBytes(int64(len(line)))
		fill(b.N)
	})
	for _, rows := range []int{1000, 1_000_000} {
		b.Run(fmt.Sprintf("Update/%d", rows), func(b *testing.B) {
			tab := fill(rows)
			r := rand.New(rand.NewPCG(1, 2))
			var k [8]byte
			b.ReportAllocs()
			for b.Loop() {
				binary.BigEndian.PutUint64(k[:], uint64(r.IntN(rows)))
				tab.Put(k[:], line)
				tab.Commit(Position{})
			}
		})
		b.Run(fmt.Sprintf("View/%d", rows), func(b *testing.B) {
			tab := fill(rows)
			var k [8]byte
			b.ReportAllocs()
			for b.Loop() {
				tab.Put(k[:], line)
				tab.Commit(Position{})
				tab.View()
			}
		})
	}
}

// TestChanged: the value is the time of the first commit that the receiver has not seen, however late it is received.
func TestChanged(t *testing.T) {
	t.Parallel()
	table := NewTable()
	commit := func() (before, after time.Time) {
		before = time.Now()
		table.Commit(Position{})
		return before, time.Now()
	}
	for range 2 {
		before, after := commit()
		for time.Now().Equal(after) { // so that the next one is later
		}
		commit()
		if at := <-table.Changed(); at.Before(before) || at.After(after) {
			t.Errorf("changed at %s, want between %s and %s", at, before, after)
		}
		select {
		case at := <-table.Changed():
			t.Errorf("changed again, at %s", at)
		default:
		}
	}
}

// TestPartial: the Parts are those of the View that the Load becomes, except those that rows are put into later. A Part that was
// returned never changes.
func TestPartial(t *testing.T) {
	t.Parallel()
	table := NewTestTable(200, 3)
	if table.Partial() != nil {
		t.Error("Partial without a Load")
	}
	table.Load(&rowjson.Shape{Fingerprint: "1"}, Origin{})
	type shown struct {
		part  Part
		lines string
	}
	var all []shown
	partial := func() (ids []uint64) {
		for _, p := range table.Partial() {
			lines, err := p.AppendTo(nil)
			if err != nil {
				t.Fatal(err)
			}
			all, ids = append(all, shown{p, string(lines)}), append(ids, p.ID())
		}
		return ids
	}
	put := func(i int) { table.Put(fmt.Appendf(nil, "%06d", i), fmt.Appendf(nil, `{"id":%d}`, i)) }
	for i := range 500 {
		put(2 * i)
		if i%17 == 0 {
			partial()
		}
	}
	before := partial()
	put(501)
	partial()
	if err := table.Commit(Position{}); err != nil {
		t.Fatal(err)
	}
	var after []uint64
	for p := range table.View().Parts() {
		after = append(after, p.ID())
	}
	same := 0
	for same < len(before) && before[same] == after[same] {
		same++
	}
	if len(before) < 20 || same == 0 || same == len(before) || !slices.Equal(before[same+1:len(before)-1], after[len(after)-len(before)+same+1:len(after)-1]) {
		t.Errorf("of %d parts the first %d are the View's, want those without the row that came late: %d and %d", len(before), same, before, after)
	}
	if table.Partial() != nil {
		t.Error("Partial after the Commit")
	}
	table.Load(&rowjson.Shape{Fingerprint: "1"}, Origin{})
	if table.Partial() != nil {
		t.Error("Partial of a reload")
	}
	for _, s := range all {
		if lines, err := s.part.AppendTo(nil); err != nil || string(lines) != s.lines {
			t.Fatalf("what was shown changed from %q to %q (%v)", s.lines, lines, err)
		}
	}
}
