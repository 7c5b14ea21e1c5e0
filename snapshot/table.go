package snapshot

import (
	"fmt"
	"sync"
	"time"

	"capture/snapshot/rowjson"
)

// Table is the working state of one table. One goroutine at a time writes: Load, Put, Delete, Truncate, then Commit or
// Rollback. View may be called from anywhere.
//
// A transaction is buffered until its Commit while it is small. A larger one is applied in place as it comes, with a savepoint
// for Rollback; so its rows are in memory once.
type Table struct {
	changed chan time.Time

	// mu guards the committed state: what View needs to make a View. That includes the tree, except while a transaction is applied
	// in place: then view is set, and only the writer uses the tree. So the writer takes mu to set or drop a savepoint and to apply
	// a buffered transaction, and not for each change in place. View may thus increment the tree's epoch between any two
	// calls of the writer, but never while the writer changes the tree.
	mu        sync.Mutex
	view      *View // the last committed state; nil until somebody asks for it
	shape     *rowjson.Shape
	origin    Origin
	position  Position
	commits   uint64
	omitted   omittedRows
	stateLost bool // there is no committed state to show until the next Load

	tree        tree
	buffer      txBuffer    // the writer's
	txOmitted   omittedRows // of the open transaction; nil if they are the committed ones; the writer's
	maxRowBytes int         // maxRowBytes, or less in a test

	loadShape  *rowjson.Shape // shape of the open Load; nil in any other transaction; the writer's
	loadOrigin Origin
}

// NewTable returns an empty Table. It has no View until its first Commit.
func NewTable() *Table { return newTable(defaultPageBytes, defaultGroupSize) }

// NewTestTable is NewTable for tests, with small pages and groups: few rows then pass through what otherwise takes millions.
func NewTestTable(pageBytes, groupSize int) *Table { return newTable(pageBytes, groupSize) }

func newTable(pageBytes, groupSize int) *Table {
	return &Table{
		changed:     make(chan time.Time, 1),
		tree:        tree{pageBytes: pageBytes, groupSize: groupSize, epoch: 1},
		maxRowBytes: maxRowBytes,
	}
}

// LimitMemory bounds how many bytes of rows a Table keeps in memory. The Table must be empty. Pages over the limit are
// moved to a spill file in folder. The writer brings a page that it needs back into memory; a reader of a View gets a copy of
// its own.
//
// onDamage is called when the spill file does not give back what was written to it: once for each file, from any goroutine. The
// next Load then stores all rows again, in a new file. onDamage may be nil.
func (t *Table) LimitMemory(bytes int64, folder string, onDamage func(error)) {
	t.tree.cache = newCache(bytes, t.tree.pageBytes, folder, onDamage)
}

// Usage returns how much memory the rows take. It may be called from any goroutine, and is zero for a Table without a limit.
func (t *Table) Usage() Usage {
	if t.tree.cache == nil {
		return Usage{}
	}
	return *t.tree.cache.usage.Load()
}

// Changed returns a channel that has a value after a Commit. Commits that the receiver has not yet seen are one value, the time of
// the first of them.
func (t *Table) Changed() <-chan time.Time { return t.changed }

// Load opens a transaction that replaces the whole table and its shape. It rolls an open transaction back. Readers see the old
// state until Commit. A Load of the same shape stores only the rows that differ, so it needs little more memory than there is in use.
func (t *Table) Load(shape *rowjson.Shape, origin Origin) {
	t.Rollback()
	t.applyInPlace()
	t.loadShape, t.loadOrigin, t.txOmitted = shape, origin, omittedRows{}
	t.tree.loads++
	t.tree.reloading = t.shape != nil && t.shape.Fingerprint == shape.Fingerprint && !t.tree.cache.resetIfCorrupt()
	if !t.tree.reloading {
		t.tree.deleteAll()
	}
}

// Put sets the row of key to line ("{…}" without a newline) in the open transaction. It copies both. A row of 4 GiB or more makes
// the transaction fail; see Err.
func (t *Table) Put(key rowjson.Key, line []byte) {
	if n := len(key) + len(line); n > t.maxRowBytes {
		t.tree.fail(fmt.Errorf("hold a row in memory: it takes %d bytes as JSON, more than the %d that a row may take", n, t.maxRowBytes))
		return
	}
	t.forgetOmitted(key)
	if len(line) > maxBufferedBytes && !t.inPlace() {
		t.applyInPlace() // without a copy of the line in the buffer
	}
	if t.inPlace() {
		t.tree.putRow(key, line)
		t.tree.enforceLimit()
		return
	}
	t.bufferOp(opPut, key, line)
}

// Delete deletes the row of key, if there is one.
func (t *Table) Delete(key rowjson.Key) {
	t.forgetOmitted(key)
	if t.inPlace() {
		t.tree.deleteRow(key)
		t.tree.enforceLimit()
		return
	}
	t.bufferOp(opDelete, key, nil)
}

// Truncate deletes all rows.
func (t *Table) Truncate() {
	t.txOmitted = omittedRows{}
	if t.inPlace() {
		t.tree.deleteAll()
		return
	}
	t.buffer.reset()
	t.bufferOp(opTruncate, nil, nil)
}

// Get returns the line of key as the open transaction sees it, or nil. The line is valid until the next call of a method. An error
// means that the row could not be read back from the spill file; then the transaction fails at its Commit, too.
func (t *Table) Get(key rowjson.Key) ([]byte, error) {
	if t.tree.err != nil {
		return nil, t.tree.err
	}
	if !t.inPlace() {
		if line, known := t.buffer.get(key); known {
			return line, nil
		}
	}
	l := findLeaf(t.tree.groups, key)
	if l == nil {
		return nil, nil
	}
	p := t.tree.loadPage(l)
	if p == nil {
		return nil, t.tree.err
	}
	t.tree.enforceLimit()
	if i, ok := p.findRow(key); ok {
		return p.line(i), nil
	}
	return nil, nil
}

// Err returns why the open transaction will fail at its Commit, or nil: rows could not be read back from the spill file or written
// to it (see [Table.LimitMemory]), or a row is too long.
func (t *Table) Err() error { return t.tree.err }

// Commit ends the open transaction: the table with its changes becomes the next View. If it has failed (see
// Err), Commit rolls it back and returns the error.
func (t *Table) Commit(at Position) error {
	if t.tree.cache != nil {
		t.tree.enforceLimit()
		t.prefault()
	}
	if t.tree.reloading && t.tree.err == nil {
		t.tree.sweep()
	}
	if t.loadShape != nil && t.tree.err == nil {
		t.tree.trimPages()
	}
	if t.tree.err != nil {
		err := t.tree.err
		t.Rollback()
		return err
	}
	if err := t.commitLocked(at); err != nil {
		return err
	}
	if c := t.tree.cache; c != nil {
		t.tree.enforceLimit()
		c.publishUsage(t.tree.live)
		t.tree.err = nil // an eviction that failed just now concerns the next transaction, if it fails again
	}
	if len(t.changed) == 0 { // nobody else sends
		t.changed <- time.Now()
	}
	return nil
}

func (t *Table) commitLocked(at Position) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.inPlace() {
		t.applyBuffer()
	}
	if err := t.tree.err; err != nil { // half of it is applied; prefault is there to prevent that
		t.tree.deleteAll()
		t.view, t.stateLost, t.tree.err = nil, true, nil
		t.omitted, t.txOmitted = nil, nil
		return err
	}
	if t.loadShape != nil {
		t.shape, t.origin, t.loadShape, t.stateLost = t.loadShape, t.loadOrigin, nil, false
		if t.tree.cache != nil {
			t.tree.cache.corrupt = false
		}
	}
	if t.txOmitted != nil {
		t.omitted, t.txOmitted = t.txOmitted, nil
	}
	t.tree.commit()
	t.view = nil
	t.position = at
	t.commits++
	return nil
}

// Rollback drops the open transaction.
func (t *Table) Rollback() {
	t.buffer.reset()
	t.tree.err, t.txOmitted = nil, nil
	if !t.inPlace() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.tree.rollback()
	t.loadShape = nil
}

// Advance moves the position of the last committed state, when the server reports that nothing changed up to there. A zero
// CommitTime leaves the time as it was.
func (t *Table) Advance(at Position) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if at.CommitTime.IsZero() {
		at.CommitTime = t.position.CommitTime
	}
	t.position = at
	if t.view != nil && !t.inPlace() {
		v := *t.view
		v.position = at
		t.view = &v
	}
}

// View returns the last committed state, or nil before the first Commit.
func (t *Table) View() *View {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.viewLocked()
}

func (t *Table) viewLocked() *View {
	if t.view == nil && t.commits > 0 && !t.stateLost {
		t.view = &View{
			shape: t.shape, origin: t.origin, position: t.position, version: t.commits,
			rows: t.tree.rows, bytes: fileBytes(t.tree.rows, t.tree.live), groups: t.tree.freeze(),
			omitted: t.omitted,
		}
	}
	return t.view
}

// Partial returns the Parts that the open Load has so far, in order. Unless rows arrive that belong among them, they are the first
// Parts of the View that its Commit makes; the last one is still growing. It returns nil if the Load goes over the rows of an
// earlier one. Only the writer may call it.
func (t *Table) Partial() []Part {
	if t.loadShape == nil || t.tree.reloading || t.tree.err != nil {
		return nil
	}
	var parts []Part
	for _, g := range t.tree.freeze() {
		for _, l := range g.leaves {
			parts = append(parts, Part{l})
		}
	}
	return parts
}

// inPlace reports whether the open transaction is applied to the tree as it comes.
func (t *Table) inPlace() bool { return t.tree.savepoint != nil }

// applyInPlace applies what is buffered of the open transaction, and its further changes as they come. The committed state is set
// apart first, for readers and for Rollback.
func (t *Table) applyInPlace() {
	t.mu.Lock()
	t.viewLocked()
	t.tree.begin()
	t.mu.Unlock()
	t.applyBuffer()
}

// applyBuffer applies the buffered changes and empties the buffer.
func (t *Table) applyBuffer() {
	for i := range t.buffer.ops {
		switch t.buffer.ops[i].kind {
		case opPut:
			t.tree.putRow(t.buffer.key(i), t.buffer.line(i))
		case opDelete:
			t.tree.deleteRow(t.buffer.key(i))
		case opTruncate:
			t.tree.deleteAll()
		}
		if t.inPlace() {
			t.tree.enforceLimit()
		}
	}
	t.buffer.reset()
}

func (t *Table) bufferOp(kind opKind, key, line []byte) {
	if !t.buffer.addOp(kind, key, line) {
		t.applyInPlace()
	}
}
