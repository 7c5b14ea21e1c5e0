package snapshot

// clockHand is the place in the tree at which the next search for a page to evict begins.
type clockHand struct{ group, leaf int }

// evictUntil evicts pages until the pages of the tree use at most limit bytes. If all retired pages together use more than
// 1/retiredShare of limit, evictUntil first evicts retired pages that are known to be in use. It does this until the retired
// pages use at most this share, or until no retired page is known to be in use.
func (c *cache) evictUntil(limit int64, groups []*group) error {
	if err := c.open(); err != nil {
		return err
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

// nextVictim returns the next leaf whose page has not been used since the hand last passed it. It returns nil if there is no
// such leaf. This is the CLOCK algorithm: the hand clears the referenced flag of each page that it passes. If the flag is
// still clear when the hand comes back, the page is evicted.
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
