package snapshot

import (
	"bytes"
	"sync"
	"time"
)

// A transaction is held aside until its Commit while it is small. A larger one is applied as it comes, after the last
// committed state has been set apart for readers: memory is then bounded by the rows themselves.
const (
	heldOps   = 4096
	heldBytes = 4 << 20
)

// Table is the working state of one table. One goroutine at a time writes: Load, Put, Delete, Truncate, then Commit or
// Rollback. View may be called from anywhere.
type Table struct {
	segmentBytes, groupSize int

	changed chan time.Time

	mu       sync.Mutex
	view     *View // the last committed state, nil while it has to be made from groups
	shape    *Shape
	origin   Origin
	position Position
	commits  uint64

	// The working state. View reads it under mu, and only while no large transaction is being applied (view is set then).
	groups []*group
	epoch  uint64
	rows   int
	live   int64

	held    held
	direct  bool    // the open transaction is being applied to groups
	load    *Shape  // the open transaction is a Load of this shape
	from    Origin  // of the Load
	merging bool    // the Load goes over the rows that are there
	undo    *undone // what Rollback goes back to, while direct
}

type undone struct {
	groups []*group
	rows   int
	live   int64
}

// NewTable is an empty Table. It has no View until its first Commit.
func NewTable() *Table {
	return newTable(defaultSegmentBytes, defaultGroupSize)
}

func newTable(segmentBytes, groupSize int) *Table {
	return &Table{segmentBytes: segmentBytes, groupSize: groupSize, changed: make(chan time.Time, 1), epoch: 1}
}

// Changed has a value after each Commit that the receiver has not yet seen; several fold into one, which is the time of
// the first.
func (t *Table) Changed() <-chan time.Time { return t.changed }

// Load opens a transaction that replaces the whole table, and its shape: a copy. What was held of an open transaction is
// dropped. Readers see the old state until Commit. Rows that come again as they were are not stored again, so that a
// copy made anew needs little more memory than the first.
func (t *Table) Load(shape *Shape, origin Origin) {
	t.Rollback()
	t.goDirect()
	t.load, t.from = shape, origin
	if t.merging = t.shape != nil && t.shape.Fingerprint == shape.Fingerprint; !t.merging {
		t.groups, t.rows, t.live = nil, 0, 0
	}
}

// Put sets the row of key to line ("{…}", no newline inside), in the open transaction. Both are copied.
func (t *Table) Put(key Key, line []byte) {
	if t.direct {
		t.put(key, line)
		return
	}
	t.hold(opPut, key, line)
}

// Delete takes the row of key out, if there is one.
func (t *Table) Delete(key Key) {
	if t.direct {
		t.delete(key)
		return
	}
	t.hold(opDelete, key, nil)
}

// Truncate takes all rows out.
func (t *Table) Truncate() {
	if t.direct {
		t.groups, t.rows, t.live = nil, 0, 0
		return
	}
	t.held.reset()
	t.hold(opTruncate, nil, nil)
}

// Get is the line of key as the open transaction sees it, or nil. It is valid until the next call.
func (t *Table) Get(key Key) []byte {
	if !t.direct {
		if line, known := t.held.get(key); known {
			return line
		}
	}
	return find(t.groups, key)
}

// Commit ends the open transaction: what it did becomes the next View.
func (t *Table) Commit(at Position) {
	if t.merging {
		t.sweep()
	}
	if t.load != nil {
		t.trim()
	}
	t.mu.Lock()
	if !t.direct {
		t.apply()
	}
	if t.load != nil {
		t.shape, t.origin, t.load = t.load, t.from, nil
	}
	t.direct, t.merging, t.undo, t.view = false, false, nil, nil
	t.position = at
	t.commits++
	t.mu.Unlock()
	if len(t.changed) == 0 { // nobody else sends
		t.changed <- time.Now()
	}
}

// Advance moves the position of the last committed state on, where the server says that nothing changed up to there.
func (t *Table) Advance(at Position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.position = at
	if t.view != nil && !t.direct {
		v := *t.view
		v.position = at
		t.view = &v
	}
}

// Rollback drops the open transaction.
func (t *Table) Rollback() {
	t.held.reset()
	if !t.direct {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.groups, t.rows, t.live = t.undo.groups, t.undo.rows, t.undo.live
	t.epoch++ // what the dropped transaction shared with its undo is not the Table's own any more
	t.direct, t.merging, t.undo, t.load = false, false, nil, nil
}

// View is the last committed state; nil before the first Commit.
func (t *Table) View() *View {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.viewLocked()
}

func (t *Table) viewLocked() *View {
	if t.view == nil && t.commits > 0 {
		t.view = &View{
			shape: t.shape, origin: t.origin, position: t.position, version: t.commits,
			rows: t.rows, bytes: fileBytes(t.rows, t.live),
			groups: append([]*group(nil), t.groups...),
		}
		t.epoch++
	}
	return t.view
}

// fileBytes is the length of the file for lines of as many bytes, terminators included.
func fileBytes(rows int, live int64) int64 {
	if rows == 0 {
		return int64(len(emptyFile))
	}
	return int64(len(opening)+len(closing)) + live - 1 // the last line has no comma
}

// goDirect lets the open transaction write to the working state, with the committed one set apart.
func (t *Table) goDirect() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.viewLocked()
	t.undo = &undone{append([]*group(nil), t.groups...), t.rows, t.live}
	t.epoch++
	t.apply()
	t.direct = true
}

func (t *Table) hold(kind opKind, key, line []byte) {
	h := &t.held
	o := op{kind: kind, koff: len(h.data), k: len(key), off: len(h.data) + len(key), n: len(line)}
	h.data = append(append(h.data, key...), line...)
	if h.index != nil {
		h.index[string(key)] = len(h.ops)
	}
	h.ops = append(h.ops, o)
	if len(h.ops) > heldOps || len(h.data) > heldBytes {
		t.goDirect()
	}
}

// apply does what is held, and forgets it.
func (t *Table) apply() {
	h := &t.held
	for i := range h.ops {
		o := &h.ops[i]
		key := h.data[o.koff : o.koff+o.k]
		switch o.kind {
		case opPut:
			t.put(key, h.data[o.off:o.off+o.n])
		case opDelete:
			t.delete(key)
		case opTruncate:
			t.groups, t.rows, t.live = nil, 0, 0
		}
	}
	h.reset()
}

// own is the group and the segment that key belongs to, both free to be changed.
func (t *Table) own(key []byte) (gi, si int) {
	gi = findGroup(t.groups, key)
	g := t.groups[gi]
	if g.epoch != t.epoch {
		g = g.clone(t.epoch)
		t.groups[gi] = g
	}
	si = g.find(key)
	if s := g.segs[si]; s.epoch != t.epoch {
		g.segs[si] = s.clone(t.epoch)
	}
	return gi, si
}

func (t *Table) put(key, line []byte) {
	if len(t.groups) == 0 {
		s := newSegment(t.epoch)
		s.put(0, false, key, line)
		t.mark(s, 0)
		g := &group{epoch: t.epoch}
		g.insert(0, s)
		t.groups = append(t.groups, g)
		t.rows++
		t.live += int64(s.live)
		return
	}
	gi, si := t.own(key)
	g := t.groups[gi]
	s := g.segs[si]
	i, found := s.find(key)
	was := s.live
	if !found {
		t.rows++
		if i == len(s.rows) && s.live+len(line) > t.segmentBytes {
			t.append(gi, si, key, line)
			return
		}
	}
	if !found || !t.merging || !bytes.Equal(s.line(i), line) {
		s.put(i, found, key, line)
	}
	t.mark(s, i)
	t.live += int64(s.live - was)
	if i == 0 {
		g.firsts[si] = prefix(key)
	}
	if s.live > t.segmentBytes+t.segmentBytes/4 && len(s.rows) > 1 {
		g.insert(si+1, s.split(s.middle()))
		t.splitGroup(gi)
	}
}

// append puts a row that comes after all others of a full segment into a new one: rows in key order fill segments whole.
func (t *Table) append(gi, si int, key, line []byte) {
	g := t.groups[gi]
	s := newSegment(t.epoch)
	last := gi == len(t.groups)-1 && si == len(g.segs)-1
	if last {
		s.buf = make([]byte, 0, max(t.segmentBytes, len(line)+len(terminator)))
		before := g.segs[si] // the new one will be much like it
		s.rows = make([]entry, 0, len(before.rows)+len(before.rows)/16+1)
		s.keys = make([]byte, 0, len(before.keys)+len(before.keys)/16+8)
	}
	s.put(0, false, key, line)
	t.mark(s, 0)
	t.live += int64(s.live)
	g.insert(si+1, s)
	if last && len(g.segs) > t.groupSize {
		n := len(g.segs) - 1
		g.remove(n)
		ng := &group{epoch: t.epoch}
		ng.insert(0, s)
		t.groups = append(t.groups, ng)
		return
	}
	t.splitGroup(gi)
}

// mark notes that the open Load has brought the row.
func (t *Table) mark(s *segment, i int) {
	if t.merging {
		s.rows[i].klen |= seen
	}
}

// sweep takes out the rows that the Load, which ends now, has not brought.
func (t *Table) sweep() {
	t.rows, t.live = 0, 0
	groups := t.groups[:0:0]
	for _, g := range t.groups {
		if g.epoch != t.epoch {
			continue // none of its rows was brought
		}
		segs, firsts := g.segs[:0], g.firsts[:0]
		for _, s := range g.segs {
			if s.epoch != t.epoch {
				continue
			}
			if s.sweep(); len(s.rows) > 0 {
				segs, firsts = append(segs, s), append(firsts, prefix(s.key(0)))
				t.rows += len(s.rows)
				t.live += int64(s.live)
			}
		}
		clear(g.segs[len(segs):])
		if g.segs, g.firsts = segs, firsts; len(segs) > 0 {
			groups = append(groups, g)
		}
	}
	t.groups = groups
}

func (t *Table) splitGroup(gi int) {
	g := t.groups[gi]
	if len(g.segs) <= t.groupSize {
		return
	}
	m := len(g.segs) / 2
	ng := &group{
		epoch:  t.epoch,
		segs:   append([]*segment(nil), g.segs[m:]...),
		firsts: append([]uint64(nil), g.firsts[m:]...),
	}
	clear(g.segs[m:])
	g.segs, g.firsts = g.segs[:m], g.firsts[:m]
	t.groups = append(t.groups, nil)
	copy(t.groups[gi+2:], t.groups[gi+1:])
	t.groups[gi+1] = ng
}

func (t *Table) delete(key []byte) {
	if find(t.groups, key) == nil {
		return
	}
	gi, si := t.own(key)
	g := t.groups[gi]
	s := g.segs[si]
	i, _ := s.find(key)
	was := s.live
	s.delete(i)
	t.rows--
	t.live += int64(s.live - was)
	switch {
	case len(s.rows) == 0:
		g.remove(si)
	case i == 0:
		g.firsts[si] = prefix(s.key(0))
		fallthrough
	default:
		t.merge(g, si)
	}
	if len(g.segs) == 0 {
		t.groups = append(t.groups[:gi], t.groups[gi+1:]...)
	}
}

// merge joins a segment that has become small with the one behind it, so that deletes leave no crumbs.
func (t *Table) merge(g *group, si int) {
	if si+1 >= len(g.segs) || g.segs[si].live+g.segs[si+1].live > t.segmentBytes/2 {
		return
	}
	s, next := g.segs[si], g.segs[si+1]
	for i := range next.rows {
		s.put(len(s.rows), false, next.key(i), next.line(i))
		s.rows[len(s.rows)-1].klen |= next.rows[i].klen & seen
	}
	g.remove(si + 1)
}

// trim gives back what a copy in another order than the key's left unused.
func (t *Table) trim() {
	for _, g := range t.groups {
		for _, s := range g.segs {
			if s.epoch == t.epoch && cap(s.buf)-s.live > s.live/8 {
				s.rebuild(0, -1)
			}
		}
	}
}
