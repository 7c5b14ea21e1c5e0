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
	loads   uint64  // how many there were
	undo    *undone // what Rollback goes back to, while direct
	err     error   // why the open transaction will fail
	lost    bool    // there is no committed state to show, until a Load
	memory  *memory // nil where all is in memory
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
	t.loads++
	t.merging = t.shape != nil && t.shape.Fingerprint == shape.Fingerprint && !t.distrust()
	if !t.merging {
		t.clear()
	}
}

// Put sets the row of key to line ("{…}", no newline inside), in the open transaction. Both are copied.
func (t *Table) Put(key Key, line []byte) {
	if t.direct {
		t.put(key, line)
		t.relieve()
		return
	}
	t.hold(opPut, key, line)
}

// Delete takes the row of key out, if there is one.
func (t *Table) Delete(key Key) {
	if t.direct {
		t.delete(key)
		t.relieve()
		return
	}
	t.hold(opDelete, key, nil)
}

// Truncate takes all rows out.
func (t *Table) Truncate() {
	if t.direct {
		t.clear()
		return
	}
	t.held.reset()
	t.hold(opTruncate, nil, nil)
}

// Get is the line of key as the open transaction sees it, or nil. It is valid until the next call. The error is that of a
// row that could not be read back from the heap file; the transaction fails at its Commit then, too.
func (t *Table) Get(key Key) ([]byte, error) {
	if t.err != nil {
		return nil, t.err
	}
	if !t.direct {
		if line, known := t.held.get(key); known {
			return line, nil
		}
	}
	s := findSegment(t.groups, key)
	if s == nil {
		return nil, nil
	}
	b := t.bring(s)
	if b == nil {
		return nil, t.err
	}
	t.relieve()
	if i, ok := b.find(key); ok {
		return b.line(i), nil
	}
	return nil, nil
}

// Commit ends the open transaction: what it did becomes the next View. Where that can't be, since rows could not be read
// back or written out (see [Table.Bound]), it is rolled back, and the error says why.
func (t *Table) Commit(at Position) error {
	if t.memory != nil {
		t.relieve()
		t.ready()
	}
	if t.merging && t.err == nil {
		t.sweep()
	}
	if t.load != nil && t.err == nil {
		t.trim()
	}
	if t.err != nil {
		err := t.err
		t.Rollback()
		return err
	}
	if err := t.commit(at); err != nil {
		return err
	}
	if t.memory != nil {
		t.relieve()
		t.report()
		t.err = nil // of writing out: it is the next transaction's, if it lasts
	}
	if len(t.changed) == 0 { // nobody else sends
		t.changed <- time.Now()
	}
	return nil
}

func (t *Table) commit(at Position) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.direct {
		t.apply()
	}
	if err := t.err; err != nil { // half of it is applied, where ready should have seen to it that this can't be
		t.clear()
		t.view, t.lost, t.err = nil, true, nil
		return err
	}
	if t.load != nil {
		t.shape, t.origin, t.load, t.lost = t.load, t.from, nil, false
		if t.memory != nil {
			t.memory.suspect = false
		}
	}
	t.direct, t.merging, t.undo, t.view = false, false, nil, nil
	t.position = at
	t.commits++
	return nil
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
	t.err = nil
	if !t.direct {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.groups, t.rows, t.live = t.undo.groups, t.undo.rows, t.undo.live
	t.epoch++ // what the dropped transaction shared with its undo is not the Table's own any more
	t.direct, t.merging, t.undo, t.load = false, false, nil, nil
	t.recount()
}

// View is the last committed state; nil before the first Commit.
func (t *Table) View() *View {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.viewLocked()
}

func (t *Table) viewLocked() *View {
	if t.view == nil && t.commits > 0 && !t.lost {
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
	t.viewLocked()
	t.undo = &undone{append([]*group(nil), t.groups...), t.rows, t.live}
	t.epoch++
	t.direct = true
	t.mu.Unlock()
	t.apply()
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
			t.clear()
		}
		if t.direct {
			t.relieve()
		}
	}
	h.reset()
}

// ownGroup is the group at gi, free to be changed.
func (t *Table) ownGroup(gi int) *group {
	g := t.groups[gi]
	if g.epoch != t.epoch {
		g = g.clone(t.epoch)
		t.groups[gi] = g
	}
	return g
}

// own is s, whose content is b, or a copy of it that is free to be changed.
func (t *Table) own(s *segment, b *body) *segment {
	if s.epoch == t.epoch {
		return s
	}
	c := s.clone(t.epoch, b)
	if t.marked(s) != nil {
		c.marks = s.marks
	}
	t.leave(s)
	t.came(c)
	return c
}

func (t *Table) put(key, line []byte) {
	if t.err != nil {
		return
	}
	if len(t.groups) == 0 {
		s := newSegment(t.epoch)
		t.fill(s, key, line)
		g := &group{epoch: t.epoch}
		g.insert(0, s)
		t.groups = append(t.groups, g)
		return
	}
	gi := findGroup(t.groups, key)
	si := t.groups[gi].find(key)
	s := t.groups[gi].segs[si]
	b := t.bring(s)
	if b == nil {
		return
	}
	i, found := b.find(key)
	if t.merging && found && bytes.Equal(b.line(i), line) {
		t.marking(s).set(i)
		return
	}
	g := t.ownGroup(gi)
	if !found && i == s.n && s.live+len(line) > t.segmentBytes {
		t.append(gi, si, key, line)
		return
	}
	s = t.own(s, b)
	g.segs[si] = s
	if t.merging {
		if m := t.marking(s); found {
			m.set(i)
		} else {
			m.insert(i)
		}
	}
	weight, live := t.weight(s), s.live
	s.put(i, found, key, line)
	t.grew(t.weight(s) - weight)
	t.live += int64(s.live - live)
	if !found {
		t.rows++
	}
	if i == 0 {
		g.firsts[si] = prefix(key)
	}
	if s.live > t.segmentBytes+t.segmentBytes/4 && s.n > 1 {
		t.split(gi, si)
	}
}

// fill puts the first row into a new segment.
func (t *Table) fill(s *segment, key, line []byte) {
	s.put(0, false, key, line)
	if t.merging {
		s.marks = &marks{load: t.loads, rows: []bool{true}, n: 1}
	}
	t.came(s)
	s.content.Load().used = true
	t.rows++
	t.live += int64(s.live)
}

func (t *Table) split(gi, si int) {
	g := t.groups[gi]
	s := g.segs[si]
	weight := t.weight(s)
	next := s.split(s.middle())
	t.grew(t.weight(s) - weight)
	t.came(next)
	g.insert(si+1, next)
	t.splitGroup(gi)
}

// append puts a row that comes after all others of a full segment into a new one: rows in key order fill segments whole.
func (t *Table) append(gi, si int, key, line []byte) {
	g := t.groups[gi]
	s := newSegment(t.epoch)
	last := gi == len(t.groups)-1 && si == len(g.segs)-1
	if last {
		b := s.content.Load()
		b.buf = make([]byte, 0, max(t.segmentBytes, len(line)+len(terminator)))
		before := g.segs[si].content.Load() // the new one will be much like it
		b.rows = make([]entry, 0, len(before.rows)+len(before.rows)/16+1)
		b.keys = make([]byte, 0, len(before.keys)+len(before.keys)/16+8)
	}
	t.fill(s, key, line)
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
	if t.err != nil || len(t.groups) == 0 {
		return
	}
	gi := findGroup(t.groups, key)
	si := t.groups[gi].find(key)
	s := t.groups[gi].segs[si]
	b := t.bring(s)
	if b == nil {
		return
	}
	i, found := b.find(key)
	if !found {
		return
	}
	g := t.ownGroup(gi)
	s = t.own(s, b)
	g.segs[si] = s
	weight, live := t.weight(s), s.live
	s.delete(i)
	t.grew(t.weight(s) - weight)
	t.rows--
	t.live += int64(s.live - live)
	switch {
	case s.n == 0:
		t.leave(s)
		g.remove(si)
	case i == 0:
		g.firsts[si] = prefix(s.firstKey())
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
	b, err := next.read()
	if err != nil {
		return // it can wait
	}
	if t.merging {
		t.joinMarks(s, next)
	}
	weight := t.weight(s)
	for i := range b.rows {
		s.put(s.n, false, b.key(i), b.line(i))
	}
	t.grew(t.weight(s) - weight)
	t.leave(next)
	g.remove(si + 1)
}

// trim gives back what a copy in another order than the key's left unused.
func (t *Table) trim() {
	for _, g := range t.groups {
		for _, s := range g.segs {
			if s.epoch != t.epoch {
				continue
			}
			if b := s.content.Load(); cap(b.buf)-b.live > b.live/8 {
				weight := t.weight(s)
				b.rebuild(0, -1)
				t.grew(t.weight(s) - weight)
			}
		}
	}
}
