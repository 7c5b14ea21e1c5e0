package snapshot

import (
	"fmt"
	"sync"
	"time"

	"capture/snapshot/rowjson"
)

// Table is the working state of one table. One goroutine at a time may write, with Load, Put, Delete, Truncate, Commit and
// Rollback. Any goroutine may call View.
//
// A small transaction is buffered until its Commit. The changes of a larger transaction are applied in place as they arrive, so
// its rows are in memory only once. Before the first of these changes, the Table sets a savepoint for Rollback.
type Table struct {
	changed chan time.Time

	// mu guards the committed state, from which the method View makes a View. The tree is part of the committed state, except
	// while a transaction is applied in place. In that time, t.view is set, so that only the writer uses the tree. The writer
	// therefore holds mu while it sets or drops a savepoint, and while it applies a buffered transaction. It does not need mu
	// for a change in place. The method View can increment the tree's epoch between two calls of the writer, but never while
	// the writer changes the tree.
	mu        sync.Mutex
	view      *View // the last committed state; nil until View or a savepoint needs it
	shape     *rowjson.Shape
	origin    Origin
	position  Position
	horizon   *Horizon // see SetHorizon
	commits   uint64
	omitted   omittedRows
	stateLost bool // whether the committed rows are lost; View then returns nil until the next Load commits

	tree        tree
	buffer      txBuffer    // changes of the open transaction that are not in the tree yet; used only by the writer
	txOmitted   omittedRows // omitted rows as the open transaction sees them; nil if they equal Table.omitted; used only by the writer
	maxRowBytes int         // maximum bytes of key and line in Put; MaxRowBytes, except in tests

	loadShape  *rowjson.Shape // shape of the open Load; nil in any other transaction; used only by the writer
	loadOrigin Origin
}

// NewTable returns an empty Table. It has no View until its first Commit.
func NewTable() *Table { return newTable(defaultPageBytes, defaultGroupSize) }

// NewTestTable returns a Table for tests. Its pages and groups are small, so that a few rows reach code that otherwise needs
// millions.
func NewTestTable(pageBytes, groupSize int) *Table { return newTable(pageBytes, groupSize) }

func newTable(pageBytes, groupSize int) *Table {
	return &Table{
		changed:     make(chan time.Time, 1),
		tree:        tree{pageBytes: pageBytes, groupSize: groupSize, epoch: 1},
		maxRowBytes: MaxRowBytes,
	}
}

// LimitMemory limits how many bytes of rows the Table keeps in memory. The Table must be empty. Pages over the limit are moved
// to a spill file in folder. The writer loads a page back into memory when it needs it. A reader of a View reads a copy of its
// own.
//
// onDamage is called when rows in the spill file cannot be read, or differ from the rows that were written. It is called at
// most once for each spill file, from any goroutine. The next Load then stores all rows again, in a new file. onDamage may be
// nil.
func (t *Table) LimitMemory(bytes int64, folder string, onDamage func(error)) {
	t.tree.spill, t.tree.old = &spiller{folder: folder, onDamage: onDamage}, nil
	t.tree.cache = newCache(bytes, t.tree.pageBytes, t.tree.spill)
}

// SpillOldRows limits the additional memory of a large transaction in a Table that has no memory limit. The Table must be
// empty. While the transaction is open, rows that it has replaced or deleted are moved to a spill file in folder, where readers
// of Views find them. These rows stay in memory if the volume has too little room, or if they cannot be written. Usage.Err
// is then the reason, until a minute after the transaction. onDamage is as in LimitMemory.
func (t *Table) SpillOldRows(folder string, onDamage func(error)) {
	t.tree.spill, t.tree.cache = &spiller{folder: folder, onDamage: onDamage}, nil
	t.tree.old = newOldRows(t.tree.spill)
}

// Usage returns how much memory the rows use. Any goroutine may call it. For a Table without a memory limit, only Spilled
// and Err are set.
func (t *Table) Usage() Usage {
	switch {
	case t.tree.cache != nil:
		return *t.tree.cache.usage.Load()
	case t.tree.old != nil:
		return t.tree.old.usage()
	}
	return Usage{}
}

// Changed returns a channel that receives the time of a Commit. If more Commits follow before the time is received, the channel
// keeps the time of the first Commit.
func (t *Table) Changed() <-chan time.Time { return t.changed }

// Load opens a transaction that replaces the whole table and its shape. It first rolls back the open transaction, if there is
// one. Readers see the old state until Commit. A Load of the same shape stores only the rows that have changed, so it needs
// little additional memory.
func (t *Table) Load(shape *rowjson.Shape, origin Origin) {
	t.Rollback()
	t.applyInPlace()
	t.loadShape, t.loadOrigin, t.txOmitted = shape, origin, omittedRows{}
	t.tree.loads++
	corrupt := t.tree.spill.resetIfCorrupt() // needed for every shape, because no new rows may go into a damaged spill file
	t.tree.reloading = t.shape != nil && t.shape.Fingerprint == shape.Fingerprint && !corrupt
	if !t.tree.reloading {
		t.tree.deleteAll()
	}
}

// Put sets the row with the given key to line ("{…}" without a newline) in the open transaction. It copies key and line. A row
// of more than [MaxRowBytes] makes the transaction fail; see [Table.Err].
func (t *Table) Put(key rowjson.Key, line []byte) {
	if n := len(key) + len(line); n > t.maxRowBytes {
		t.tree.fail(fmt.Errorf("hold a row in memory: it takes %d bytes as JSON, more than the %d that a row may take", n, t.maxRowBytes))
		return
	}
	t.forgetOmitted(key)
	if len(line) > maxBufferedBytes && !t.inPlace() {
		t.applyInPlace() // so that the buffer does not copy this large line
	}
	if t.inPlace() {
		t.tree.putRow(key, line)
		t.tree.enforceLimit()
		return
	}
	t.bufferOp(opPut, key, line)
}

// Delete deletes the row with the given key, if it exists, in the open transaction.
func (t *Table) Delete(key rowjson.Key) {
	t.forgetOmitted(key)
	if t.inPlace() {
		t.tree.deleteRow(key)
		t.tree.enforceLimit()
		return
	}
	t.bufferOp(opDelete, key, nil)
}

// Truncate deletes all rows in the open transaction.
func (t *Table) Truncate() {
	t.txOmitted = omittedRows{}
	if t.inPlace() {
		t.tree.deleteAll()
		return
	}
	t.buffer.reset()
	t.bufferOp(opTruncate, nil, nil)
}

// Get returns the line of the row with the given key as the open transaction sees it, or nil if there is no such row. The line
// is valid until the next call of a method of the Table. Get returns an error if the row cannot be read back from the spill
// file; the transaction then fails at its Commit, too.
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
	i, found := p.findRow(key)
	if !found {
		return nil, nil
	}
	if line := t.tree.pending.line(l, i); line != nil {
		return line, nil
	}
	return p.line(i), nil
}

// Err returns the error that the Commit of the open transaction will return, or nil. A transaction fails if rows cannot be
// written to the spill file or read back from it (see [Table.LimitMemory]), or if a row is too long.
func (t *Table) Err() error { return t.tree.err }

// Commit ends the open transaction. The table with the transaction's changes becomes the next View, at the given position. If
// the transaction has failed (see [Table.Err]), Commit rolls it back and returns the error.
func (t *Table) Commit(at Position) error {
	if err := t.commit(at); err != nil {
		return err
	}
	if len(t.changed) == 0 { // only the writer sends, so the next line cannot block
		t.changed <- time.Now()
	}
	return nil
}

// commit is like Commit, but sends nothing to the channel of Changed.
func (t *Table) commit(at Position) error {
	if t.tree.cache != nil {
		t.tree.enforceLimit()
		t.prefault()
	}
	if t.tree.old.mayBeInTree() && !t.inPlace() {
		t.applyInPlace() // sets a savepoint, in case a row cannot be read back from the spill file
	}
	t.tree.putPending()
	if t.tree.reloading && t.tree.err == nil {
		t.tree.sweep()
	}
	if t.loadShape != nil && t.tree.err == nil {
		t.tree.trimPages()
		t.tree.loadOldRows()
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
		t.tree.err = nil // a failed eviction does not concern the committed transaction; the next transaction tries again
	}
	return nil
}

func (t *Table) commitLocked(at Position) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.inPlace() {
		t.applyBuffer()
	}
	if err := t.tree.err; err != nil { // the transaction is applied only in part, which prefault should have prevented
		t.tree.deleteAll()
		t.view, t.horizon, t.stateLost, t.tree.err = nil, nil, true, nil
		t.omitted, t.txOmitted = nil, nil
		return err
	}
	if t.loadShape != nil {
		t.shape, t.origin, t.horizon, t.loadShape, t.stateLost = t.loadShape, t.loadOrigin, nil, nil, false
		if t.tree.spill != nil {
			t.tree.spill.corrupt = false
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

// Advance sets the position of the last committed state, after the server has reported that nothing has changed since the
// previous position. If the CommitTime of the new position is zero, the previous CommitTime is kept.
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

// SetHorizon sets the horizon of the last committed state and of the states after it, until the next Load commits. h must be
// valid for the last committed state. A nil horizon means that nothing is known about the age of the rows. Only the writer may
// call it.
func (t *Table) SetHorizon(h *Horizon) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.horizon = h
	if t.view != nil {
		v := *t.view
		v.horizon = h
		t.view = &v
	}
}

// View returns the last committed state. It returns nil before the first Commit. If a Commit fails after part of its changes
// has been applied, View returns nil until the next Load commits.
func (t *Table) View() *View {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.viewLocked()
}

func (t *Table) viewLocked() *View {
	if t.view == nil && t.commits > 0 && !t.stateLost {
		t.view = &View{
			shape: t.shape, origin: t.origin, position: t.position, horizon: t.horizon, version: t.commits,
			rows: t.tree.rows, bytes: fileBytes(t.tree.rows, t.tree.live), groups: t.tree.freeze(),
			omitted: t.omitted,
		}
	}
	return t.view
}

// Partial returns the Parts that the open Load has stored so far, in order. If no later row belongs between them, they will be
// the first Parts of the View that the Load's Commit makes. The last Part is still growing. Partial returns nil for a reload
// and for a Load that has failed. Only the writer may call it.
func (t *Table) Partial() []Part {
	if t.loadShape == nil || t.tree.reloading || t.tree.err != nil {
		return nil
	}
	t.tree.putPending()
	var parts []Part
	for _, g := range t.tree.freeze() {
		for _, l := range g.leaves {
			parts = append(parts, Part{l})
		}
	}
	return parts
}

// inPlace reports whether the changes of the open transaction are applied to the tree as they arrive.
func (t *Table) inPlace() bool { return t.tree.savepoint != nil }

// applyInPlace first makes the View of the committed state, for readers, and a savepoint, for Rollback. Then it applies the
// buffered changes of the open transaction to the tree. Later changes of the transaction are applied as they arrive.
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
