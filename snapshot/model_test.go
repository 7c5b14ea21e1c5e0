package snapshot

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"capture/internal/race"
	"capture/internal/volume"
	"capture/snapshot/rowjson"
)

// numbered returns the i-th key.
func numbered(i int) rowjson.Key { return binary.BigEndian.AppendUint64(nil, uint64(i)) }

// file returns the content of a feedback.json with these rows. rows maps each key to its line.
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

// TestTableEqualsModel applies random transactions to a Table and to a map, and compares the two. Some transactions are
// rolled back. Old Views must not change.
func TestTableEqualsModel(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	// With this seed, a delete within a reload once moved a row to another leaf and forgot that the row had been seen.
	t.Run("1795469545025188281", func(t *testing.T) { model(t, 1795469545025188281, 0) })
	rounds := 30
	if race.Enabled {
		rounds = 8
	}
	for round := range rounds {
		seed := seed + uint64(round)
		t.Run(fmt.Sprint(seed), func(t *testing.T) { model(t, seed, 0) })
	}
}

// TestTableEqualsModelSpilled is like TestTableEqualsModel, but the Table has a memory limit below the size of the rows, down
// to one byte.
func TestTableEqualsModelSpilled(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	spilled, rounds := 0, 12
	if race.Enabled {
		rounds = 3 // one round for each limit
	}
	for round := range rounds {
		seed := seed + uint64(round)
		limit := []int64{1, 2 << 10, 16 << 10}[round%3]
		t.Run(fmt.Sprint(seed, "/", limit), func(t *testing.T) { spilled += model(t, seed, limit) })
	}
	if spilled < 50*rounds {
		t.Errorf("rows were in the spill file after %d transactions", spilled)
	}
}

// TestTableEqualsModelOldRowsSpilled is like TestTableEqualsModel, but the Table spills all old rows.
func TestTableEqualsModelOldRowsSpilled(t *testing.T) {
	seed, spilled, rounds := uint64(time.Now().UnixNano()), 0, 10
	if race.Enabled {
		rounds = 5
	}
	for round := range rounds {
		seed := seed + uint64(round)
		t.Run(fmt.Sprint(seed), func(t *testing.T) { spilled += model(t, seed, spillOld) })
	}
	if spilled < 10*rounds {
		t.Errorf("rows were in the spill file after %d transactions", spilled)
	}
}

const spillOld = -1 // memory limit that stands for two things: the Table has no limit, and it spills old rows

// spillOldRows makes tab spill its old rows, with the given slack in place of leastSlack. It also makes tab believe that its
// volume always has room.
func spillOldRows(t *testing.T, tab *Table, slack int64, onDamage func(error)) {
	tab.SpillOldRows(t.TempDir(), onDamage)
	tab.tree.old.least = slack
	tab.tree.old.measure = func(string) (volume.Usage, error) { return volume.Usage{Size: 1 << 40, Free: 1 << 40}, nil }
}

// model applies random transactions to a Table and to a map, and compares the two. limit is the memory limit in bytes, 0 for
// a Table without one, or spillOld. model returns the number of transactions at whose end rows were in the spill file.
func model(t *testing.T, seed uint64, limit int64) (spilled int) {
	r := rand.New(rand.NewPCG(seed, 1))
	tab := newTable([]int{64, 200, 4096}[r.IntN(3)], []int{2, 3, 16}[r.IntN(3)])
	if limit == spillOld {
		spillOldRows(t, tab, 1, func(err error) { t.Error(err) })
	}
	if limit > 0 {
		tab.LimitMemory(limit, t.TempDir(), func(err error) { t.Error(err) })
	}
	if tab.View() != nil {
		t.Fatal("a View before the first Commit")
	}
	keys := 1 + r.IntN(400)
	key := func() rowjson.Key {
		if r.IntN(4) == 0 { // keys of other lengths, with common prefixes
			return append([]byte("prefix-of-many-bytes"), fmt.Sprint(r.IntN(keys))...)
		}
		return numbered(r.IntN(keys))
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
			list := slices.Sorted(maps.Keys(rows))
			changesOnly := r.IntN(2) == 0 && tab.LoadChanges(shape, Origin{})
			if changesOnly {
				r.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
				if tab.Keep(rowjson.Key("unknown")) {
					t.Fatal("a row was kept that does not exist")
				}
			} else {
				tab.Load(shape, Origin{})
			}
			for _, k := range list { // most rows stay unchanged
				switch c := r.IntN(10); {
				case c == 0:
					delete(rows, k)
				case c == 1, !changesOnly:
					if c == 1 {
						rows[k] = fmt.Sprintf(`{"new":%d}`, r.Int())
					}
					tab.Put(rowjson.Key(k), []byte(rows[k]))
				case !tab.Keep(rowjson.Key(k)):
					t.Fatalf("row %q is not known", k)
				}
				if _, exists := rows[k]; exists && changesOnly && tab.Keep(rowjson.Key(k)) {
					t.Fatalf("row %q was kept twice", k)
				}
				if r.IntN(10) == 0 {
					tab.EndPage()
				}
			}
			if seen, unseen := tab.Seen(); changesOnly && (seen != len(rows) || unseen != len(list)-len(rows)) {
				t.Fatalf("%d rows seen and %d not, of %d and %d", seen, unseen, len(rows), len(list))
			}
			loading = true
		}
		size := r.IntN(30)
		if r.IntN(30) == 0 {
			size = maxBufferedOps + r.IntN(100) // too many changes for the buffer
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
		if limit == spillOld && tab.Usage().Spilled > 0 {
			spilled++
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
		if limit > 0 && tab.Usage().Spilled > 0 {
			spilled++
		}
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
	return spilled
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
	some, want := make([]rowjson.Key, 20), 0
	for i := range some {
		if some[i] = key(); rows[string(some[i])] != "" {
			want++
		}
	}
	slices.SortFunc(some, func(a, b rowjson.Key) int { return bytes.Compare(a, b) })
	if n, err := v.CountKeys(some); err != nil || n != want {
		t.Fatalf("CountKeys(%q): %d, not %d; %v", some, n, want, err)
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

// checkFrozen checks that the tree has frozen all its groups and leaves, so that it must clone them before a change.
func checkFrozen(t *testing.T, tab *Table) {
	t.Helper()
	for _, g := range tab.tree.groups {
		if g.epoch >= tab.tree.epoch || slices.ContainsFunc(g.leaves, func(l *leaf) bool { return l.epoch >= tab.tree.epoch }) {
			t.Fatalf("the tree, of epoch %d, may change in place what a View shows", tab.tree.epoch)
		}
	}
}

// checkMemory compares the number of bytes of pages in memory with the number that the cache has counted.
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
