package snapshot

import "capture/snapshot/spill"

// clockHand is the place in the tree at which the next search for a victim begins.
type clockHand struct{ group, leaf int }

// evictUntil evicts pages until those of the tree take no more than limit bytes, and the retired ones their share of it.
func (c *cache) evictUntil(limit int64, groups []*group) error {
	if c.file == nil {
		f, err := spill.Open(c.folder, c.onDamage)
		if err != nil {
			return err
		}
		c.file = f
	}
	if c.retired.bytes > limit/retiredShare {
		if err := c.evictRetired(limit / retiredShare); err != nil {
			return err
		}
	}
	for c.resident > limit {
		l, p := c.nextVictim(groups)
		if l == nil {
			return nil
		}
		if err := c.evict(l, p); err != nil {
			return err
		}
		c.resident -= p.memoryBytes()
	}
	return nil
}

// nextVictim returns the next leaf whose page has not been used since the hand last passed it, or nil. This is the CLOCK
// algorithm: the hand clears a page's referenced flag and moves on; a page that still lacks it on the next turn is evicted.
func (c *cache) nextVictim(groups []*group) (*leaf, *page) {
	hand := &c.hand
	for turns := 0; turns < 3; {
		if hand.group >= len(groups) {
			hand.group, hand.leaf = 0, 0
			turns++
			continue
		}
		g := groups[hand.group]
		if hand.leaf >= len(g.leaves) {
			hand.group, hand.leaf = hand.group+1, 0
			continue
		}
		l := g.leaves[hand.leaf]
		hand.leaf++
		if p := l.page.Load(); p != nil {
			if !p.referenced {
				return l, p
			}
			p.referenced = false
		}
	}
	return nil, nil
}

// evict removes the page p of l from memory, after writing it to the spill file if it is not there yet. The order matters to
// readers of Views: see the field page of leaf.
func (c *cache) evict(l *leaf, p *page) error {
	if l.extent == nil {
		c.scratch = appendPage(c.scratch[:0], p)
		extent, err := c.file.Write(c.scratch, l.live)
		if cap(c.scratch) > 1<<20 {
			c.scratch = nil // do not keep the memory of one huge row
		}
		if err != nil {
			return err
		}
		l.extent, l.first = extent, append([]byte(nil), p.key(0)...)
		l.epoch = 0 // from now on a change clones the leaf, since its extent would be out of date
	}
	l.page.Store(nil)
	return nil
}
