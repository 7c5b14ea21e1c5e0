package snapshot

import (
	"sync"
	"time"

	"capture/snapshot/rowjson"
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
	shape    *rowjson.Shape
	origin   Origin
	position Position
	commits  uint64

	// The working state. View reads it under mu, and only while no large transaction is being applied (view is set then).
	groups []*group
	epoch  uint64
	rows   int
	live   int64

	held    held
	direct  bool           // the open transaction is being applied to groups
	load    *rowjson.Shape // the open transaction is a Load of this shape
	from    Origin         // of the Load
	merging bool           // the Load goes over the rows that are there
	loads   uint64         // how many there were
	undo    *undone        // what Rollback goes back to, while direct
	err     error          // why the open transaction will fail
	lost    bool           // there is no committed state to show, until a Load
	memory  *memory        // nil where all is in memory
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

// NewTestTable is NewTable for tests, with small segments and groups: few rows then pass through what otherwise takes millions.
func NewTestTable(segmentBytes, groupSize int) *Table { return newTable(segmentBytes, groupSize) }

func newTable(segmentBytes, groupSize int) *Table {
	return &Table{segmentBytes: segmentBytes, groupSize: groupSize, changed: make(chan time.Time, 1), epoch: 1}
}

// Changed has a value after each Commit that the receiver has not yet seen; several fold into one, which is the time of
// the first.
func (t *Table) Changed() <-chan time.Time { return t.changed }

// Load opens a transaction that replaces the whole table, and its shape: a copy. What was held of an open transaction is
// dropped. Readers see the old state until Commit. Rows that come again as they were are not stored again, so that a
// copy made anew needs little more memory than the first.
func (t *Table) Load(shape *rowjson.Shape, origin Origin) {
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
func (t *Table) Put(key rowjson.Key, line []byte) {
	if t.direct {
		t.put(key, line)
		t.relieve()
		return
	}
	t.hold(opPut, key, line)
}

// Delete takes the row of key out, if there is one.
func (t *Table) Delete(key rowjson.Key) {
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
// row that could not be read back from the spill file; the transaction fails at its Commit then, too.
func (t *Table) Get(key rowjson.Key) ([]byte, error) {
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

// Err is why the open transaction will fail at its Commit; nil as long as it won't.
func (t *Table) Err() error { return t.err }

// Commit ends the open transaction: what it did becomes the next View. Where that can't be, since rows could not be read
// back or written out (see [Table.LimitMemory]), it is rolled back, and the error says why.
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

// Partial returns the Parts that the open Load has so far, in order. Unless rows arrive that belong among them, they are the first
// Parts of the View that its Commit makes; the last one is still growing. It returns nil if the Load goes over the rows of an
// earlier one. Only the writer may call it.
func (t *Table) Partial() []Part {
	if t.load == nil || t.merging || t.err != nil {
		return nil
	}
	var parts []Part
	for _, g := range t.groups {
		for _, s := range g.segs {
			parts = append(parts, Part{s})
		}
	}
	t.epoch++ // they are shown to others
	return parts
}

// Advance moves the position of the last committed state on, where the server says that nothing changed up to there. A
// zero CommitTime leaves that as it was.
func (t *Table) Advance(at Position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at.CommitTime.IsZero() {
		at.CommitTime = t.position.CommitTime
	}
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
