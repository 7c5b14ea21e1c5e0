package store_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"capture/internal/race"
	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
)

// TestWriteAheadAtRandom makes several copies of a table row by row, and calls WriteAhead in between. Most rows are added at
// the end, a few at other places. Sometimes the test writes an older state, or drops what was written ahead. At the end of
// each copy, the file must have exactly the rows of the copy.
func TestWriteAheadAtRandom(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	older := votes(10, "older").View()
	rounds := 12
	if race.Enabled {
		rounds = 4
	}
	for round := range rounds {
		odd := []int{0, 2, 60}[r.IntN(3)] // number of rows in a thousand that are not added at the end
		table := snapshot.NewTestTable(1<<r.IntN(17), 1+r.IntN(20))
		table.Load(&rowjson.Shape{Table: "votes", Key: []int{0}, Columns: older.Shape().Columns}, snapshot.Origin{})
		going := true
		for id := range r.IntN(2500) {
			at := 2 * id
			if r.IntN(1000) < odd {
				at = r.IntN(2*id+2) | 1
			}
			table.Put(key(at), row(at, r.IntN(4000), string(rune('a'+r.IntN(26)))))
			switch n := r.IntN(1000); {
			case n < 20 && going:
				going = f.WriteAhead(t.Context(), table.Partial())
			case n < 22:
				write(t, f, older, store.ReasonInterval)
				checkPair(t, path)
			case n == 22:
				f.WriteAhead(t.Context(), nil)
				if left := leftovers(t, path); len(left) > 0 && strings.HasSuffix(left[0], ".tmp") && round == 0 {
					t.Errorf("what was dropped is still there: %v", left)
				}
			}
		}
		table.Commit(snapshot.Position{LSN: 1})
		write(t, f, table.View(), store.ReasonStart)
		m := checkPair(t, path)
		if got, want := read(t, path), content(t, table.View()); !bytes.Equal(unpadded(got), want) || m.Rows != table.View().Rows() {
			t.Fatalf("round %d: the file has %d bytes that are not the View's %d", round, len(got), len(want))
		}
	}
}

// TestWriteAheadIsUsed checks that rows that arrive in key order are on disk before the copy ends, and that Write then
// publishes the file that WriteAhead has begun.
func TestWriteAheadIsUsed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	var ahead os.FileInfo
	table := copied(3000, strings.Repeat("x", 1000), func(parts []snapshot.Part) {
		if f.WriteAhead(t.Context(), parts); len(parts) > 30 {
			ahead, _ = os.Stat(path + ".tmp")
		}
	})
	if ahead == nil || ahead.Size() < 1<<20 {
		t.Fatalf("written ahead: %v", ahead)
	}
	write(t, f, table.View(), store.ReasonStart)
	checkPair(t, path)
	info, err := os.Stat(path)
	if err != nil || !os.SameFile(info, ahead) {
		t.Errorf("the published file is not the one that was written ahead (%v)", err)
	}
	if left := leftovers(t, path); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// TestWriteAheadIsDropped checks that what was written ahead is dropped when the File is closed, and when rows arrive in
// random order, but not when a context ends.
func TestWriteAheadIsDropped(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	ended, end := context.WithCancel(t.Context())
	end()
	random := snapshot.NewTable()
	random.Load(&rowjson.Shape{Table: "votes", Key: []int{0}}, snapshot.Origin{})
	r := rand.New(rand.NewPCG(1, 2))
	going, most := true, int64(0)
	for i := 0; going && i < 200_000; i++ {
		id := r.IntN(1 << 40)
		random.Put(key(id), row(id, 2000, "x"))
		if i == 1000 && !f.WriteAhead(ended, random.Partial()) {
			t.Error("an ended context drops what was written ahead")
		}
		if i%5000 == 4999 {
			going = f.WriteAhead(t.Context(), random.Partial())
			if info, err := os.Stat(path + ".tmp"); err == nil {
				most = max(most, info.Sys().(*syscall.Stat_t).Blocks*512)
			}
		}
	}
	if going {
		t.Error("rows in no order were written ahead again and again")
	}
	if most == 0 {
		t.Error("nothing was written ahead")
	}
	if left := leftovers(t, path); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
	copied(1000, strings.Repeat("x", 1000), func(parts []snapshot.Part) { f.WriteAhead(t.Context(), parts) })
	if left := leftovers(t, path); len(left) != 1 {
		t.Errorf("left over: %v, want only what was written ahead", left)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, path); len(left) > 0 {
		t.Errorf("left over after Close: %v", left)
	}
}
