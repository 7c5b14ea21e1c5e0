package snapshot

import (
	"slices"

	"capture/snapshot/rowjson"
)

// A reload is a Load into a Table that already has rows of the same shape. It copies a table again without storing the rows
// twice: an unchanged row is only marked as seen, a row that differs is put, and at the end the rows that were not seen are
// deleted. With LoadChanges, the caller knows which rows are unchanged, and passes only their keys.

// LoadChanges opens a transaction like [Table.Load], for a caller that knows which rows have not changed. The caller calls Keep
// for each unchanged row, and Put for each other row. LoadChanges reports false, and opens no transaction, if the Table has no
// rows of this shape or if its rows can no longer be read.
func (t *Table) LoadChanges(shape *rowjson.Shape, origin Origin) bool {
	t.Rollback()
	if t.shape == nil || t.stateLost || t.shape.Fingerprint != shape.Fingerprint || t.tree.spill.resetIfCorrupt() {
		return false
	}
	t.Load(shape, origin)
	return true
}

// Keep keeps the row with the given key as it is, in a transaction that LoadChanges has opened. It reports false if the Table
// has no such row, or if the transaction has already put or kept it.
func (t *Table) Keep(key rowjson.Key) bool {
	if sizes, omitted := t.omitted[string(key)]; omitted {
		if _, again := t.txOmitted[string(key)]; again {
			return false
		}
		t.txOmitted[string(key)] = sizes
		return true
	}
	kept := t.tree.keepRow(key)
	t.tree.enforceLimit()
	return kept
}

// Seen returns the number of rows that the open transaction of LoadChanges has put or kept, and the number of other rows, which
// its Commit will delete. Omitted rows are not counted.
func (t *Table) Seen() (seen, unseen int) {
	for _, g := range t.tree.groups {
		for _, l := range g.leaves {
			if s := t.tree.seenRows(l); s != nil {
				seen += s.count
			}
		}
	}
	return seen, t.tree.rows - seen
}

// keepRow marks the row with the given key as seen. It reports false if there is no such row or if it was seen before.
func (t *tree) keepRow(key []byte) bool {
	l := findLeaf(t.groups, key)
	if l == nil || t.err != nil {
		return false
	}
	p := l.page.Load()
	if p == nil {
		var err error
		if p, err = t.keysOf(l); err != nil {
			t.fail(err)
			return false
		}
	} else {
		p.referenced = true
	}
	i, found := p.findRow(key)
	if !found {
		return false
	}
	s := t.seenOrNew(l)
	if s.hasRow(i) {
		return false
	}
	s.setRow(i)
	return true
}

// keysOf returns a page with the keys of l and without lines. The page of l is not in memory. keysOf keeps the keys of the
// last leaf, because the next key is often in the same leaf. Since keysOf loads only keys, a reload of unchanged rows evicts
// no page.
func (t *tree) keysOf(l *leaf) (*page, error) {
	if t.lastKeys.leaf != l {
		p, err := l.readKeys()
		if err != nil {
			return nil, err
		}
		t.lastKeys.leaf, t.lastKeys.page = l, p
	}
	return t.lastKeys.page, nil
}

// sweep deletes the rows that the reload has not seen. It is the last step of a reload.
func (t *tree) sweep() {
	for gi := range t.groups {
		g := t.sweepGroup(gi)
		if t.err != nil {
			return
		}
		for _, l := range g.leaves {
			l.seen = nil
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
			t.rows, t.live = t.rows-l.rows, t.live-int64(l.live)
			t.retire(l, nil)
			continue
		case s.count < l.rows:
			p := t.loadPage(l)
			if p == nil {
				return nil
			}
			l = t.ownLeaf(l, p)
			rows, live := l.rows, l.live
			l.deleteUnseen(s)
			t.rows, t.live = t.rows-(rows-l.rows), t.live-int64(live-l.live)
			t.countReplaced(live - l.live)
			prefix = keyPrefix(l.firstKey())
		}
		kept.leaves, kept.prefixes = append(kept.leaves, l), append(kept.prefixes, prefix)
	}
	t.groups[gi] = kept
	t.enforceLimit()
	return kept
}
