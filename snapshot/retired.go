package snapshot

import (
	"runtime/metrics"
	"weak"
)

// retired are pages in memory whose leaves have left the tree. A change leaves one behind whenever a View has shown the leaf. Most
// of them are garbage soon; those that a View holds, because its reader is slow, take memory for as long as that lasts. So when
// retired pages take more than their share, the ones that are still in use are evicted, too.
//
// Only the garbage collector knows which are in use. The list holds weak pointers, and a leaf counts as in use if it outlived two
// collections since it was retired: one that had begun before may have seen it while it was in the tree.
type retired struct {
	list      []retiredLeaf
	bytes     int64  // memory of their pages, by the last count
	pruneAt   int    // length of the list at which garbage is removed from it
	sweptAtGC uint64 // number of the collection at which evictRetired last ran
}

type retiredLeaf struct {
	leaf  weak.Pointer[leaf]
	bytes int64
	gc    uint64 // collections until it was retired; 0 if it is known to be in use
}

// leastPruned is the number of leaves below which pruning is not worth the time.
const leastPruned = 1024

// addLeaf adds l, whose page is p. saved reports that the savepoint of the open transaction has it, so it is known to be in use.
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

// prune removes the leaves that are garbage or not in memory, and counts the bytes of the others again.
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

// evictRetired evicts retired pages that are in use until all of them take at most limit bytes.
func (c *cache) evictRetired(limit int64) error {
	r, now := &c.retired, gcCycles()
	if now == r.sweptAtGC && r.list[len(r.list)-1].gc != 0 {
		return nil // no collection since the last time, so nothing new is known
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

// gcCycles returns how often the garbage collector has run, plus 3: so that 0 stands for more than two collections ago.
func gcCycles() uint64 {
	sample := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64() + 3
}
