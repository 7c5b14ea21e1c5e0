package snapshot

import "bytes"

const defaultGroupSize = 512 // maximum number of leaves in a group

// tree is the working state of a Table: a copy-on-write B-tree of two levels, groups and leaves.
//
// If a group or leaf has the same epoch as the tree, it is newer than the last freeze. Nothing but the tree refers to it, so
// the tree may change it in place. Before the tree changes any other group or leaf, it makes a clone, which gets the tree's
// epoch. So freeze only has to copy the list of groups and increment the tree's epoch. After that, the tree no longer changes
// any existing group or leaf in place.
type tree struct {
	pageBytes, groupSize int

	groups []*group // no group is empty
	epoch  uint64
	rows   int
	live   int64 // bytes of all lines, terminators included

	savepoint *savepoint   // state that rollback restores; nil unless the open transaction is applied in place
	pending   pendingLines // lines of the open transaction that are not in their page yet
	loads     uint64       // number of Loads so far
	reloading bool         // whether the open transaction is a reload; see reload.go
	pageEnded bool         // whether the next row begins a new leaf if it comes after all other rows; see [Table.EndPage]
	spill     *spiller     // nil if the Table has no spill file
	cache     *cache       // nil without a memory limit
	old       *oldRows     // nil unless old rows are spilled
	lastKeys  struct {     // the leaf that keysOf read last, and a page with the leaf's keys
		leaf *leaf
		page *page
	}
	err error // error that the open transaction's Commit will return; once it is set, changes are ignored
}

// savepoint is the state of the tree before the open transaction, whose changes are applied in place.
type savepoint struct {
	groups []*group
	rows   int
	live   int64
	epoch  uint64 // leaves with a lower epoch belong to the savepoint; all other leaves are newer
}

// freeze returns a copy of the list of groups. The tree will never again change these groups or the rows of their leaves.
func (t *tree) freeze() []*group {
	t.epoch++
	return append([]*group(nil), t.groups...)
}

// begin sets a savepoint, so that changes can be applied in place.
func (t *tree) begin() {
	groups := t.freeze()
	t.savepoint, t.pageEnded = &savepoint{groups, t.rows, t.live, t.epoch}, false
	t.old.begin(t.live)
}

// commit keeps the changes since the savepoint.
func (t *tree) commit() {
	t.old.end(false)
	t.savepoint, t.reloading = nil, false
	t.lastKeys.leaf, t.lastKeys.page = nil, nil
}

// rollback restores the savepoint. The groups and leaves of the savepoint stay frozen: begin has incremented the tree's epoch,
// and the epochs of these groups and leaves are lower.
//
// The dropped transaction may have appended lines to the buffers of the savepoint's pages. The next clone of such a page
// overwrites these lines. That is safe, because nobody can reach the pages of the dropped transaction. A View shows only
// committed states. Partial shows a page of an open transaction only if the page shares no buffer with older pages.
func (t *tree) rollback() {
	t.pending.reset()
	t.groups, t.rows, t.live = t.savepoint.groups, t.savepoint.rows, t.savepoint.live
	t.savepoint, t.reloading = nil, false
	t.lastKeys.leaf, t.lastKeys.page = nil, nil
	t.cache.reset(t.groups)
	t.old.end(true)
}

// fail makes the open transaction fail at its Commit.
func (t *tree) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}

// loadPage returns the page of l, and loads it into memory first if necessary. If the page cannot be read back, loadPage makes
// the transaction fail and returns nil.
func (t *tree) loadPage(l *leaf) *page {
	p := l.page.Load()
	if p == nil || p.spilled != nil {
		var err error
		if p, err = l.readPage(); err != nil {
			t.fail(err)
			return nil
		}
		l.page.Store(p)
		t.cache.addResident(l)
	}
	p.referenced = true
	return p
}

// retire records that l has left the tree. The page of l no longer counts as resident. If l is in the savepoint, its rows
// now count as old rows. next is the clone that has replaced l, or nil.
func (t *tree) retire(l, next *leaf) {
	t.cache.retire(l, l.epoch == t.epoch, t.savepoint != nil)
	if t.savepoint != nil && l.epoch < t.savepoint.epoch {
		t.old.addLeaf(l, next)
	}
}

// countReplaced counts n bytes of lines that the open transaction replaces or deletes.
func (t *tree) countReplaced(n int) {
	if t.savepoint != nil {
		t.old.addBytes(n)
	}
}

// enforceLimit evicts pages, or moves old rows to the spill file, if they use too much memory. If an eviction fails and the
// pages exceed the limit by too much, the transaction fails. enforceLimit is called between transactions, and between the
// changes of a transaction that is applied in place.
func (t *tree) enforceLimit() {
	t.old.enforceLimit(t.live)
	if t.cache == nil {
		return
	}
	if err := t.cache.enforceLimit(t.groups, t.live); err != nil {
		t.fail(err)
	}
}

// ownGroup returns a group at index gi that may be changed in place: the present group, or a clone that replaces it.
func (t *tree) ownGroup(gi int) *group {
	g := t.groups[gi]
	if g.epoch != t.epoch {
		g = g.clone(t.epoch)
		t.groups[gi] = g
	}
	return g
}

// ownLeaf returns a leaf that may be changed in place: l itself, or a clone of l, which the caller must put into the group.
// p is the page of l.
func (t *tree) ownLeaf(l *leaf, p *page) *leaf {
	if l.epoch == t.epoch {
		return l
	}
	c := l.clone(t.epoch, p)
	if t.seenRows(l) != nil {
		c.seen = l.seen
	}
	t.retire(l, c)
	t.cache.addResident(c)
	return c
}

func (t *tree) putRow(key, line []byte) {
	if t.err != nil {
		return
	}
	if len(t.groups) == 0 {
		t.pageEnded = false
		l := newLeaf(t.epoch)
		t.putFirstRow(l, key, line)
		g := &group{epoch: t.epoch}
		g.insertLeaf(0, l)
		t.groups = append(t.groups, g)
		return
	}
	gi := findGroup(t.groups, key)
	li := t.groups[gi].findLeaf(key)
	l := t.groups[gi].leaves[li]
	p := t.loadPage(l)
	if p == nil {
		return
	}
	i, found := p.findRow(key)
	short := len(line) <= t.pageBytes/4
	if t.pending.leaf != nil && !(found && short && t.pending.accepts(l, i)) {
		t.putPending()
		t.putRow(key, line)
		return
	}
	ended := t.pageEnded
	t.pageEnded = false
	if t.reloading && found {
		s := t.seenOrNew(l)
		s.setRow(i)
		if bytes.Equal(p.line(i), line) {
			return
		}
	}
	if found {
		t.countReplaced(int(p.entries[i].lineLen))
	}
	if found && short && t.savepoint != nil {
		t.pending.addLine(gi, li, l, i, line)
		if len(t.pending.lines) > t.pageBytes/2 {
			t.putPending()
		}
		return
	}
	g := t.ownGroup(gi)
	if !found && i == l.rows && (ended || l.live+len(line) > t.pageBytes-t.pageBytes/slackDivisor) {
		t.appendLeaf(gi, li, key, line)
		return
	}
	l = t.ownLeaf(l, p)
	g.leaves[li] = l
	memory, live := t.cache.residentBytes(l), l.live
	if !found {
		if t.reloading {
			t.seenOrNew(l).insertRow(i)
		}
		t.rows++
	}
	l.putRow(i, found, key, line)
	if i == 0 {
		g.prefixes[li] = keyPrefix(key)
	}
	t.countChange(gi, li, memory, live)
}

// countChange updates the totals after a change of the leaf at index li of the group at index gi. memory and live are the
// values before the change: the bytes of memory of the leaf's page, and the bytes of the leaf's lines. If the leaf is now
// too large, countChange splits it.
func (t *tree) countChange(gi, li int, memory int64, live int) {
	l := t.groups[gi].leaves[li]
	t.cache.adjustResident(t.cache.residentBytes(l) - memory)
	t.live += int64(l.live - live)
	t.splitLarge(gi, li)
}

// putFirstRow puts the first row into l, which is a new leaf.
func (t *tree) putFirstRow(l *leaf, key, line []byte) {
	l.putRow(0, false, key, line)
	if t.reloading {
		l.seen = newSeen(t.loads, 0)
		l.seen.appendRow(true)
	}
	t.cache.addResident(l)
	l.page.Load().referenced = true
	t.rows++
	t.live += int64(l.live)
}

// appendLeaf puts a row into a new leaf after the leaf at index li. It is called if the row comes after all rows of the leaf at
// index li, and this leaf is full or was ended by EndPage. If rows arrive in key order, they therefore fill their pages almost
// completely. If the full leaf were split instead, each page would stay half full.
func (t *tree) appendLeaf(gi, li int, key, line []byte) {
	g := t.groups[gi]
	l := newLeaf(t.epoch)
	last := gi == len(t.groups)-1 && li == len(g.leaves)-1
	if last { // the new page will probably be as full as the page before it, so its buffers get their memory at once
		p, before := l.page.Load(), g.leaves[li].page.Load()
		p.lines = make([]byte, 0, max(t.pageBytes, len(line)+len(terminator)))
		p.entries = make([]entry, 0, len(before.entries)+len(before.entries)/16+1)
		p.keys = make([]byte, 0, len(before.keys)+len(before.keys)/16+8)
	}
	t.putFirstRow(l, key, line)
	g.insertLeaf(li+1, l)
	if last && len(g.leaves) > t.groupSize {
		g.removeLeaf(len(g.leaves) - 1)
		next := &group{epoch: t.epoch}
		next.insertLeaf(0, l)
		t.groups = append(t.groups, next)
		return
	}
	t.splitGroup(gi)
}

func (t *tree) deleteRow(key []byte) {
	t.putPending()
	if t.err != nil || len(t.groups) == 0 {
		return
	}
	gi := findGroup(t.groups, key)
	li := t.groups[gi].findLeaf(key)
	l := t.groups[gi].leaves[li]
	p := t.loadPage(l)
	if p == nil {
		return
	}
	i, found := p.findRow(key)
	if !found {
		return
	}
	g := t.ownGroup(gi)
	l = t.ownLeaf(l, p)
	g.leaves[li] = l
	memory, live := t.cache.residentBytes(l), l.live
	t.countReplaced(int(p.entries[i].lineLen))
	l.deleteRow(i)
	t.cache.adjustResident(t.cache.residentBytes(l) - memory)
	t.rows--
	t.live += int64(l.live - live)
	switch {
	case l.rows == 0:
		t.retire(l, nil)
		g.removeLeaf(li)
	case i == 0:
		g.prefixes[li] = keyPrefix(l.firstKey())
		fallthrough
	default:
		t.mergeWithNext(g, li)
	}
	if len(g.leaves) == 0 {
		t.groups = append(t.groups[:gi], t.groups[gi+1:]...)
	}
}

func (t *tree) deleteAll() {
	t.pending.reset()
	if t.spill != nil {
		for _, g := range t.groups {
			for _, l := range g.leaves {
				t.retire(l, nil)
			}
		}
	}
	if t.cache != nil {
		t.cache.resident = 0
	}
	t.groups, t.rows, t.live = nil, 0, 0
}

// trimPages rebuilds pages that a Load has left with much unused space. That happens if the rows do not arrive in key order.
func (t *tree) trimPages() {
	for _, g := range t.groups {
		for _, l := range g.leaves {
			t.trimPage(l)
		}
	}
}

// loadOldRows loads the tree's rows that are still in the spill file. A row of the tree can be there only after a rollback:
// the dropped transaction had moved it there as an old row. loadOldRows is called at the end of a Load, which usually has
// already read or replaced these rows.
func (t *tree) loadOldRows() {
	if !t.old.mayBeInTree() {
		return
	}
	for _, g := range t.groups {
		for _, l := range g.leaves {
			if t.loadPage(l) == nil {
				return
			}
		}
	}
	t.old.inTree = false
}

func (t *tree) trimPage(l *leaf) {
	p := l.page.Load()
	if l.epoch != t.epoch || p == nil || allocSize(cap(p.lines))-allocSize(p.live) <= p.live/slackDivisor {
		return
	}
	memory := t.cache.residentBytes(l)
	p.rebuild(0, nil)
	t.cache.adjustResident(t.cache.residentBytes(l) - memory)
}

// seenRows returns the record of the rows of l that the open reload has seen, or nil if there is none.
func (t *tree) seenRows(l *leaf) *seen {
	if !t.reloading || l.seen == nil || l.seen.load != t.loads {
		return nil
	}
	return l.seen
}

// seenOrNew returns the record of the rows of l that the open reload has seen. If there is no such record, seenOrNew makes an
// empty record. It must be called before a row of l is put or deleted.
func (t *tree) seenOrNew(l *leaf) *seen {
	if s := t.seenRows(l); s != nil {
		return s
	}
	l.seen = newSeen(t.loads, l.rows)
	return l.seen
}

// appendSeen appends the seen rows of the leaf next to the seen rows of l. It must be called before the rows of next are put
// into l.
func (t *tree) appendSeen(l, next *leaf) {
	if t.seenRows(l) == nil && t.seenRows(next) == nil {
		return
	}
	s := t.seenOrNew(l)
	if more := t.seenRows(next); more != nil {
		s.appendRows(more)
	} else {
		s.appendRows(newSeen(t.loads, next.rows))
	}
}
