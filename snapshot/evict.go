package snapshot

import "capture/snapshot/spill"

// clockHand is the place in the tree at which the next search for a page to evict begins.
type clockHand struct{ group, leaf int }

// evictUntil evicts pages until those of the tree use at most limit bytes, and the retired ones at most 1/retiredShare of
// limit.
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

// nextVictim returns the next leaf whose page has not been used since the hand last passed it, or nil if there is none. This is
// the CLOCK algorithm: the hand clears the referenced flag of each page that it passes. A page whose flag is still clear when
// the hand returns is evicted.
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

// evict removes p, the page of l, from memory. If the spill file does not have the page yet, evict first writes it there.
// Readers of Views depend on the order of the assignments; see the field page of leaf.
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
		l.epoch = 0 // a later change must clone the leaf, since the extent keeps the old rows
	}
	l.page.Store(nil)
	return nil
}
