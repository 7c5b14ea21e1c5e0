package spill

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestAllocator runs random allocations. It checks that no block in use is assigned again, and that freed blocks are
// assigned again.
func TestAllocator(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	var a allocator
	var runs []run
	owned := map[int]bool{}
	for range 20_000 {
		if n := len(runs); n > 200 || n > 0 && r.IntN(2) == 0 {
			i := r.IntN(n)
			for b := runs[i].first; b < runs[i].first+runs[i].count; b++ {
				delete(owned, b)
			}
			a.free(runs[i])
			runs[i] = runs[n-1]
			runs = runs[:n-1]
		} else {
			fresh := run{count: 1 + r.IntN(40)}
			fresh.first = a.alloc(fresh.count)
			for b := fresh.first; b < fresh.first+fresh.count; b++ {
				if owned[b] || b >= a.total {
					t.Fatalf("block %d of %d is in use already", b, a.total)
				}
				owned[b] = true
			}
			runs = append(runs, fresh)
		}
		if a.inUse != len(owned) {
			t.Fatalf("%d blocks in use, %d by its count", len(owned), a.inUse)
		}
	}
	if a.total > 3*200*20 { // three times what 200 runs of 20 blocks take
		t.Errorf("the file has grown to %d blocks", a.total)
	}
}
