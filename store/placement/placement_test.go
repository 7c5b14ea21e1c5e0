package placement_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"capture/internal/race"
	"capture/store/placement"
)

const patchFrom = 1 << 10

// table holds the rows of a table in Parts, as snapshot.Table does. A Part that changes gets a new ID.
type table struct {
	parts  [][]string
	ids    []uint64
	nextID uint64
}

func newTable(parts ...[]string) *table {
	t := &table{}
	for _, rows := range parts {
		t.insert(len(t.parts), rows)
	}
	return t
}

func (t *table) insert(i int, rows []string) {
	t.nextID++
	t.parts, t.ids = slices.Insert(t.parts, i, rows), slices.Insert(t.ids, i, t.nextID)
}

func (t *table) change(i int, rows []string) {
	t.nextID++
	t.parts[i], t.ids[i] = rows, t.nextID
}

func (t *table) remove(i int) {
	t.parts, t.ids = slices.Delete(t.parts, i, i+1), slices.Delete(t.ids, i, i+1)
}

func (t *table) placementParts() []placement.Part {
	var list []placement.Part
	for i, rows := range t.parts {
		list = append(list, placement.Part{ID: t.ids[i], Bytes: int64(len(lines(rows)))})
	}
	return list
}

func lines(rows []string) string { return strings.Join(rows, ",\n") + ",\n" }

// row returns a row of n bytes.
func row(n int, fill string) string { return `{"c":"` + strings.Repeat(fill, n-8) + `"}` }

func rows(count, bytes int, fill string) []string {
	return slices.Repeat([]string{row(bytes, fill)}, count)
}

// render returns the bytes of the whole file with the layout l.
func (t *table) render(l *placement.Layout) ([]byte, error) {
	var file []byte
	for i := range l.Pieces() {
		from := int64(len(file))
		if l.PieceOff(i) != from || l.PieceAt(from) != i || l.PieceAt(max(0, l.PieceOff(i)+l.PieceBytes(i)-1)) != i {
			return nil, fmt.Errorf("piece %d does not begin at %d", i, from)
		}
		var err error
		file, err = l.AppendPiece(file, i, func(b []byte) ([]byte, error) { return append(b, lines(t.parts[i])...), nil })
		if err != nil {
			return nil, err
		}
		if n := int64(len(file)) - from; n != l.PieceBytes(i) {
			return nil, fmt.Errorf("piece %d has %d bytes, not %d", i, n, l.PieceBytes(i))
		}
	}
	if int64(len(file)) != l.Bytes {
		return nil, fmt.Errorf("the file has %d bytes, not %d", len(file), l.Bytes)
	}
	return file, nil
}

func (t *table) file(tt *testing.T, l *placement.Layout) []byte {
	tt.Helper()
	file, err := t.render(l)
	if err != nil {
		tt.Fatal(err)
	}
	var decoded []json.RawMessage
	if err := json.Unmarshal(file, &decoded); err != nil {
		tt.Fatalf("the file is not JSON: %v\n%s", err, file)
	}
	if want := slices.Concat(t.parts...); len(decoded) != len(want) {
		tt.Fatalf("the file has %d rows, not %d", len(decoded), len(want))
	}
	var plain bytes.Buffer
	for i, r := range slices.Concat(t.parts...) {
		if i > 0 {
			plain.WriteString(",\n")
		}
		plain.WriteString(r)
	}
	want := "[\n" + plain.String() + "\n]\n"
	if len(t.parts) == 0 {
		want = "[]\n"
	}
	if got := unpad(file); got != want {
		tt.Fatalf("without padding the file is\n%s\nnot\n%s", got, want)
	}
	return file
}

// unpad removes the spaces before the closing braces of rows. The rows of these tests have no such spaces of their own.
func unpad(file []byte) string { return strings.ReplaceAll(string(file), " ", "") }

// patch returns a copy of the old content in which the spans have the bytes of the next content.
func patch(old, next []byte, spans []placement.Span) []byte {
	file := slices.Clone(old)
	for _, s := range spans {
		to := min(s.To, int64(len(next)))
		if missing := to - int64(len(file)); missing > 0 {
			file = append(file, make([]byte, missing)...)
		}
		copy(file[s.From:to], next[s.From:to])
	}
	if len(file) > len(next) {
		file = file[:len(next)]
	}
	return file
}

func TestNew(t *testing.T) {
	for _, c := range []struct {
		name string
		tab  *table
		fill placement.FillFactor
		want string
	}{
		{"empty", newTable(), placement.FillFactor97, "[]\n"},
		{"one row", newTable([]string{`{"a":1}`}), placement.FillFactor97, "[\n{\"a\":1}\n]\n"},
		{"no padding", newTable([]string{`{"a":1}`, `{"a":2}`}, []string{`{"a":3}`}), placement.FillFactor100, "[\n{\"a\":1},\n{\"a\":2},\n{\"a\":3}\n]\n"},
		{"padding before the last brace of a region", newTable([]string{`{"a":1}`, row(57, "x")}, []string{`{"a":3}`}), placement.FillFactor97,
			"[\n{\"a\":1},\n{\"c\":\"" + strings.Repeat("x", 49) + "\"  },\n{\"a\":3}\n]\n"},
	} {
		l := placement.New(c.tab.placementParts(), c.fill)
		if got := string(c.tab.file(t, l)); got != c.want {
			t.Errorf("%s: the file is\n%q, not\n%q", c.name, got, c.want)
		}
	}
}

// TestNextAtRandom changes a table at random. Each file must have all rows of its state. If the changed spans are patched
// into the previous file, the result must be the new file. Parts that did not change must keep their regions, apart from a
// few whose padding a neighbor takes.
func TestNextAtRandom(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 1))
	some := func() []string { return rows(1+r.IntN(5), 10+r.IntN(90), string(rune('a'+r.IntN(26)))) }
	tab := newTable()
	for range 40 {
		tab.insert(len(tab.parts), some())
	}
	l := placement.New(tab.placementParts(), placement.FillFactor97)
	// Only the number of moved regions needs so many states: with fewer, chance could raise the average to its limit.
	const states = 4000
	checkEvery := 4 // files take most of the time, so only these states get one
	if race.Enabled {
		checkEvery = 16
	}
	patched, moved := 0, 0
	for state := range states {
		check := state%checkEvery == 0
		var before []byte
		if check {
			before = tab.file(t, l)
		}
		for range 1 + r.IntN(3) {
			switch i := r.IntN(len(tab.parts) + 1); {
			case i == len(tab.parts) || r.IntN(4) == 0 && len(tab.parts) < 80:
				tab.insert(i, some())
			case r.IntN(4) == 0 && len(tab.parts) > 20:
				tab.remove(i)
			default:
				tab.change(i, some())
			}
		}
		parts := tab.placementParts()
		next := l.Next(parts, patchFrom)
		if next == nil {
			next = placement.New(parts, placement.FillFactor97)
		} else {
			patched++
			for _, region := range l.Regions {
				if i := slices.Index(tab.ids, region.PartID); i >= 0 && next.Regions[i] != region {
					moved++
				}
			}
		}
		if check {
			file := tab.file(t, next)
			for _, align := range []int64{1, 64, 4096} {
				spans := next.ChangedSpans(l, align)
				if got := patch(before, file, spans); !bytes.Equal(got, file) {
					t.Fatalf("patched in %v the file is\n%s\nnot\n%s", spans, got, file)
				}
				end := int64(-1)
				for _, s := range spans {
					if s.From <= end || s.To <= s.From || s.From%align != 0 || s.To%align != 0 {
						t.Fatalf("spans %v, aligned to %d", spans, align)
					}
					end = s.To
				}
			}
			rowBytes := int64(len(unpad(file)))
			if next.Bytes > rowBytes*5/4+patchFrom/4 {
				t.Fatalf("%d bytes for %d of rows", next.Bytes, rowBytes)
			}
		}
		l = next
	}
	if patched < states/2 {
		t.Errorf("%d of %d states were placed near the one before", patched, states)
	}
	if moved > 10*patched {
		t.Errorf("%d regions of unchanged Parts moved in %d states", moved, patched)
	}
	t.Logf("%d of %d states were placed near the one before; %d unchanged Parts moved", patched, states, moved)
}

// TestNext checks that a small change of the table changes only few bytes of the file.
func TestNext(t *testing.T) {
	build := func() *table { return newTable(slices.Repeat([][]string{rows(4, 100, "x")}, 50)...) }
	for _, c := range []struct {
		name   string
		change func(tab *table)
		most   int64 // maximum number of bytes in the changed spans
	}{
		{"nothing", func(*table) {}, 0},
		{"a row changes in place", func(tab *table) { tab.change(7, rows(4, 100, "y")) }, 420},
		{"a row grows into the padding", func(tab *table) { tab.change(7, append(rows(3, 100, "x"), row(110, "y"))) }, 420},
		{"a row grows into the next region's padding", func(tab *table) { tab.change(7, append(rows(3, 100, "x"), row(120, "y"))) }, 1300},
		{"a Part goes", func(tab *table) { tab.remove(7) }, 900},
		{"a Part is split", func(tab *table) { tab.change(7, rows(2, 100, "x")); tab.insert(8, rows(2, 100, "x")) }, 420},
		{"rows are appended", func(tab *table) { tab.change(49, rows(6, 100, "x")) }, 620},
		{"the last Part goes", func(tab *table) { tab.remove(49) }, 420},
	} {
		tab := build()
		l := placement.New(tab.placementParts(), placement.FillFactor97)
		before := tab.file(t, l)
		c.change(tab)
		next := l.Next(tab.placementParts(), patchFrom)
		if next == nil {
			t.Errorf("%s: the file is to be written whole", c.name)
			continue
		}
		spans, changed := next.ChangedSpans(l, 1), int64(0)
		for _, s := range spans {
			changed += s.To - s.From
		}
		if changed > c.most {
			t.Errorf("%s: %d bytes change in %v", c.name, changed, spans)
		}
		if file := tab.file(t, next); !bytes.Equal(patch(before, file, spans), file) {
			t.Errorf("%s: patched in %v the file is another", c.name, spans)
		}
	}
}

// TestPaddingIsLeft checks that a Part that had to take the padding of its neighbors has some padding left. If the Part
// grows by one more byte, only its own region changes.
func TestPaddingIsLeft(t *testing.T) {
	tab := newTable(slices.Repeat([][]string{rows(4, 100, "x")}, 50)...)
	l := placement.New(tab.placementParts(), placement.FillFactor97)
	// Each region has 12 bytes of padding. A row that grows by 24 bytes takes all padding of two regions. Therefore, Next must
	// add a third region, so that the Part has padding left.
	tab.change(7, append(rows(3, 100, "x"), row(124, "y")))
	if l = l.Next(tab.placementParts(), patchFrom); l == nil {
		t.Fatal("the file is to be written whole")
	}
	tab.change(7, append(rows(3, 100, "x"), row(125, "y")))
	next := l.Next(tab.placementParts(), patchFrom)
	if next == nil {
		t.Fatal("the file is to be written whole")
	}
	if spans := next.ChangedSpans(l, 1); len(spans) != 1 || spans[0] != (placement.Span{From: l.Regions[7].Off, To: l.Regions[7].End()}) {
		t.Errorf("%v change, and region 7 is %+v", spans, l.Regions[7])
	}
}

// TestNextRewrites checks that Next returns nil if much of the file changes, or if the file would have too much padding. The
// caller then places all rows again.
func TestNextRewrites(t *testing.T) {
	const many = 200
	build := func() *table { return newTable(slices.Repeat([][]string{rows(4, 100, "x")}, many)...) }
	for name, change := range map[string]func(tab *table){
		"each row changes": func(tab *table) {
			for i := range many {
				tab.change(i, rows(4, 100, "y"))
			}
		},
		"each row gets shorter": func(tab *table) {
			for i := 0; i < many; i += 3 {
				tab.change(i, rows(1, 50, "x"))
			}
		},
		"the table is emptied": func(tab *table) { tab.parts, tab.ids = nil, nil },
	} {
		tab := build()
		l := placement.New(tab.placementParts(), placement.FillFactor97)
		change(tab)
		if next := l.Next(tab.placementParts(), patchFrom); next != nil {
			t.Errorf("%s: %d bytes are placed near the last state's", name, next.Bytes)
		}
	}
}

// TestAppendPieceOfOtherRows checks that AppendPiece returns an error for rows that do not fit their region.
func TestAppendPieceOfOtherRows(t *testing.T) {
	tab := newTable(rows(2, 100, "x"), rows(2, 100, "x"))
	l := placement.New(tab.placementParts(), placement.FillFactor97)
	for piece, other := range map[int][]string{0: rows(3, 100, "x"), 1: rows(1, 100, "x")} {
		_, err := l.AppendPiece(nil, piece, func(b []byte) ([]byte, error) { return append(b, lines(other)...), nil })
		if err == nil {
			t.Errorf("piece %d takes rows of another length", piece)
		}
	}
	if _, err := l.AppendPiece(nil, 0, func(b []byte) ([]byte, error) { return append(b, "{}"...), nil }); err == nil {
		t.Error("a piece takes what does not end as rows do")
	}
}
