package snapshot

import (
	"runtime/metrics"
	"weak"
)

// retired counts the pages in memory whose leaves have left the tree. When the rows of a leaf change after a View has shown the
// leaf, a clone replaces the leaf in the tree. Most replaced leaves soon become garbage, but a View with a slow reader keeps
// its leaves in memory. So when retired pages use more than their share of the limit, the cache also evicts the retired pages
// that are still in use.
//
// Only the garbage collector can find out which leaves are in use. The list therefore holds weak pointers, and a leaf counts as
// in use if it has survived two collections since it was retired. One collection is not enough: it may have begun before the
// leaf was retired, and may have reached the leaf through the tree.
type retired struct {
	list      []retiredLeaf
	bytes     int64  // bytes of memory that the pages use, as of the last count
	pruneAt   int    // length of the list at which prune is called
	sweptAtGC uint64 // result of gcCycles when evictRetired last ran
}

type retiredLeaf struct {
	leaf  weak.Pointer[leaf]
	bytes int64
	gc    uint64 // result of gcCycles when the leaf was retired; 0 if the leaf is known to be in use
}

// leastPruned is the number of leaves below which pruning is not worth the time.
const leastPruned = 1024

// addLeaf adds l, whose page is p. If saved is set, the savepoint of the open transaction may contain l, so l counts as in
// use.
func (r *retired) addLeaf(l *leaf, p *page, saved bool) {
	entry := retiredLeaf{leaf: weak.Make(l), bytes: p.memoryBytes()}
	if !saved {
		entry.gc = gcCycles()
	}
	if len(r.list) >= r.pruneAt {
		r.prune()
	}
	r.list, r.bytes = append(r.list, entry), r.bytes+entry.bytes
}

// prune removes leaves that are garbage or whose page is not in memory, and recounts the bytes of the other pages.
func (r *retired) prune() {
	kept := r.list[:0]
	r.bytes = 0
	for _, entry := range r.list {
		if l := entry.leaf.Value(); l != nil {
			if p := l.page.Load(); p != nil {
				entry.bytes = p.memoryBytes()
				kept, r.bytes = append(kept, entry), r.bytes+entry.bytes
			}
		}
	}
	clear(r.list[len(kept):])
	r.list, r.pruneAt = kept, 2*len(kept)+leastPruned
}

// evictRetired evicts retired pages until the remaining retired pages use at most limit bytes. It evicts only pages whose
// leaves are known to be in use. Any other leaf may be garbage, and then the collector frees its page without a write to the
// spill file.
func (c *cache) evictRetired(limit int64) error {
	r, now := &c.retired, gcCycles()
	if now == r.sweptAtGC && r.list[len(r.list)-1].gc != 0 {
		return nil // no garbage collection has ended since the last call, so no other leaf is known to be still in use
	}
	r.sweptAtGC = now
	r.prune()
	for _, entry := range r.list {
		if r.bytes <= limit {
			break
		}
		l := entry.leaf.Value()
		if l == nil || entry.gc+2 > now {
			continue
		}
		if p := l.page.Load(); p != nil {
			if err := c.evict(l, p); err != nil {
				return err
			}
			r.bytes -= entry.bytes
		}
	}
	return nil
}

// gcCycles returns the number of completed garbage collections, plus 3. Because of the 3, a retiredLeaf whose gc is 0 always
// counts as retired more than two collections ago.
func gcCycles() uint64 {
	sample := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64() + 3
}
