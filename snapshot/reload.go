package snapshot

import "slices"

// A reload is a Load into a Table that already has rows of the same shape. It copies a table again without storing the rows
// twice: an unchanged row is only marked as seen, a row that differs is put, and at the end the rows that were not seen are
// deleted.

// seenRows returns the record of the rows of l that the open reload has seen, or nil if there is none.
func (t *tree) seenRows(l *leaf) *seen {
	if !t.reloading || l.seen == nil || l.seen.load != t.loads {
		return nil
	}
	return l.seen
}

// seenOrNew returns the record of the rows of l that the open reload has seen. If there is none, it makes an empty one. It must
// be called before a row of l is put or deleted.
func (t *tree) seenOrNew(l *leaf) *seen {
	if s := t.seenRows(l); s != nil {
		return s
	}
	l.seen = &seen{load: t.loads, rows: make([]bool, l.rows)}
	return l.seen
}

// appendSeen appends the record of next to the record of l. It must be called before the rows of next are added to l.
func (t *tree) appendSeen(l, next *leaf) {
	if t.seenRows(l) == nil && t.seenRows(next) == nil {
		return
	}
	s := t.seenOrNew(l)
	if more := t.seenRows(next); more != nil {
		s.rows, s.count = append(s.rows, more.rows...), s.count+more.count
	} else {
		s.rows = append(s.rows, make([]bool, next.rows)...)
	}
}

// sweep deletes the rows that the reload has not seen. It is the last step of a reload.
func (t *tree) sweep() {
	t.rows, t.live = 0, 0
	for gi := range t.groups {
		g := t.sweepGroup(gi)
		if t.err != nil {
			return
		}
		for _, l := range g.leaves {
			l.seen = nil
			t.rows += l.rows
			t.live += int64(l.live)
		}
	}
	t.groups = slices.DeleteFunc(t.groups, func(g *group) bool { return len(g.leaves) == 0 })
}

// sweepGroup deletes the unseen rows of the group at index gi. It returns the group with the remaining rows, or nil on an
// error. It does not change leaves whose rows were all seen.
func (t *tree) sweepGroup(gi int) *group {
	g := t.groups[gi]
	if !slices.ContainsFunc(g.leaves, func(l *leaf) bool { s := t.seenRows(l); return s == nil || s.count < l.rows }) {
		return g
	}
	kept := &group{epoch: t.epoch, leaves: make([]*leaf, 0, len(g.leaves)), prefixes: make([]uint64, 0, len(g.leaves))}
	for i, l := range g.leaves {
		prefix, s := g.prefixes[i], t.seenRows(l)
		switch {
		case s == nil || s.count == 0:
			t.retire(l)
			continue
		case s.count < l.rows:
			p := t.loadPage(l)
			if p == nil {
				return nil
			}
			l = t.ownLeaf(l, p)
			l.deleteUnseen(s)
			prefix = keyPrefix(l.firstKey())
		}
		kept.leaves, kept.prefixes = append(kept.leaves, l), append(kept.prefixes, prefix)
	}
	t.groups[gi] = kept
	t.enforceLimit()
	return kept
}
