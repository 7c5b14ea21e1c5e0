package snapshot

import "slices"

// pendingLines collects new lines of rows of one leaf, so that the tree can put all of them into the page at once. A large
// transaction often changes most rows of a page in key order, and a page has room for few additional lines. If each line were
// put separately, the page would be rebuilt for almost each row.
//
// Only transactions that are applied in place use pendingLines. The lines stay pending as long as the transaction only
// replaces lines of later rows of the same leaf. Any other change first calls [tree.putPending].
type pendingLines struct {
	leaf    *leaf // nil if no lines are pending
	gi, li  int   // index of the group, and index of leaf in this group
	indices []int // indices of the rows, in ascending order
	lines   []byte
	ends    []int // offset in lines of the end of each line
}

// accepts reports whether addLine may add a new line for the row at index i of l.
func (d *pendingLines) accepts(l *leaf, i int) bool {
	return d.leaf == nil || d.leaf == l && i > d.indices[len(d.indices)-1]
}

func (d *pendingLines) addLine(gi, li int, l *leaf, i int, line []byte) {
	d.leaf, d.gi, d.li = l, gi, li
	d.lines = append(d.lines, line...)
	d.indices, d.ends = append(d.indices, i), append(d.ends, len(d.lines))
}

// line returns the pending line of the row at index i of l, or nil if there is none.
func (d *pendingLines) line(l *leaf, i int) []byte {
	if d.leaf != l {
		return nil
	}
	j, found := slices.BinarySearch(d.indices, i)
	if !found {
		return nil
	}
	start := 0
	if j > 0 {
		start = d.ends[j-1]
	}
	return d.lines[start:d.ends[j]:d.ends[j]]
}

func (d *pendingLines) reset() {
	d.leaf, d.indices, d.lines, d.ends = nil, d.indices[:0], d.lines[:0], d.ends[:0]
}

// putPending puts the pending lines into their page.
func (t *tree) putPending() {
	d := &t.pending
	if d.leaf == nil {
		return
	}
	defer d.reset()
	p := t.loadPage(d.leaf)
	if p == nil {
		return
	}
	g, l := t.ownGroup(d.gi), t.ownLeaf(d.leaf, p)
	g.leaves[d.li] = l
	memory, live := t.cache.residentBytes(l), l.live
	l.replaceLines(d.indices, d.ends, d.lines)
	t.countChange(d.gi, d.li, memory, live)
}
