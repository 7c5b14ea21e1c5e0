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

	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
)

// TestPrepare has copies written ahead while they grow: at their end for the most part, somewhere else now and then; and an
// older state written in between, or nothing of it used. What is there after the copy is the copy, whatever came before.
func TestPrepare(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 2))
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	older := votes(10, "older").View()
	for round := range 12 {
		odd := []int{0, 2, 60}[r.IntN(3)] // rows in a thousand that do not come at the end
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
					t.Errorf("what was taken back is still there: %v", left)
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

// TestPrepareIsUsed: rows that come in the order of their keys are on disk before the copy ends, in the very file that takes
// the name then. One that comes late, within them, takes nothing back but what lies behind it.
func TestPrepareIsUsed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "feedback.json")
	f := open(t, path)
	var drafted os.FileInfo
	table := copied(3000, strings.Repeat("x", 1000), func(parts []snapshot.Part) {
		if f.WriteAhead(t.Context(), parts); len(parts) > 30 {
			drafted, _ = os.Stat(path + ".tmp")
		}
	})
	if drafted == nil || drafted.Size() < 1<<20 {
		t.Fatalf("written ahead: %v", drafted)
	}
	write(t, f, table.View(), store.ReasonStart)
	checkPair(t, path)
	info, err := os.Stat(path)
	if err != nil || !os.SameFile(info, drafted) {
		t.Errorf("the file is another than the one that was begun (%v)", err)
	}
	if left := leftovers(t, path); len(left) > 0 {
		t.Errorf("left over: %v", left)
	}
}

// TestPrepareInVain: a draft ends with the File, with its context, and where rows come in no order at all.
func TestPrepareInVain(t *testing.T) {
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
			t.Error("that its context has ended is no reason to give a draft up")
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
		t.Errorf("left over: %v, want the draft", left)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, path); len(left) > 0 {
		t.Errorf("left over after the end: %v", left)
	}
}
