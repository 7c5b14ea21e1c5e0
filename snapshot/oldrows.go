package snapshot

import (
	"fmt"
	"sync/atomic"
	"time"
	"weak"

	"capture/internal/volume"
	"capture/snapshot/spill"
)

// oldRows limits the memory of old rows: rows that the open transaction has replaced or deleted. Readers and the savepoint need
// them until the Commit. If half of the table changes, old rows would need half of the table's memory in addition. Once they
// use too much memory, oldRows moves them to the spill file.
//
// The old version of a page usually shares most lines with the new version, so evicting the whole page would free little.
// Therefore oldRows moves only the private lines (see rebase.go). It evicts a whole page only if the page shares few lines.
//
// If rows cannot be moved, they stay in memory, and the transaction continues. [oldRows.usage] returns the reason. A nil
// oldRows does nothing. A Table never has both oldRows and a cache.
type oldRows struct {
	*spiller
	least   int64                                     // minimum of the slack, in bytes; see slackShare
	measure func(folder string) (volume.Usage, error) // volume.Measure, except in tests

	before  int64     // bytes of the lines in the savepoint
	list    []oldLeaf // leaves of the savepoint that have left the tree and have a page in memory
	bytes   int64     // approximate bytes of memory that only the old rows use
	retryAt int64     // after an attempt that moved too few rows, the next attempt begins when the field bytes exceeds retryAt; otherwise 0
	written bool      // whether the open transaction has moved rows to the spill file
	failed  bool      // whether the open transaction has failed to move rows to the spill file
	inTree  bool      // whether rows of the tree may be in the spill file, because a transaction was rolled back

	shown atomic.Pointer[spill.File] // the spill file, which usage reports on; nil until rows are moved
	stuck atomic.Pointer[stuckRows]  // last rows that could not be moved, which usage reports; nil once later rows have been moved
}

// stuckRows are old rows that cannot be moved to the spill file.
type stuckRows struct {
	err   error     // reason why they stay in memory
	ended time.Time // end of their transaction; zero while it is open
}

// oldLeaf is a leaf that has left the tree and is still in the savepoint.
type oldLeaf struct {
	leaf *leaf
	next weak.Pointer[leaf] // clone that replaced leaf; the two leaves may share lines
}

const (
	slackShare    = 64       // while a transaction is open, its old and new rows together may exceed the size of the table by 1/slackShare of this size, the slack
	leastSlack    = 16 << 20 // minimum of the slack in bytes, so that small tables have no spill file
	leastOwnShare = 32       // private lines of less than 1/leastOwnShare of a page are not worth a block of the spill file

	// stuckShown is how long (*oldRows).usage still reports stuck rows after the end of their transaction. Without this
	// time, the report would disappear between large transactions, and nobody would see the report of a short transaction.
	stuckShown = time.Minute
)

func newOldRows(s *spiller) *oldRows {
	return &oldRows{spiller: s, least: leastSlack, measure: volume.Measure}
}

// begin starts a transaction that is applied in place. savedBytes is the number of bytes of the lines in the savepoint.
func (o *oldRows) begin(savedBytes int64) {
	if o != nil {
		o.before, o.retryAt, o.failed = savedBytes, 0, false
	}
}

// end ends the transaction. After a rollback, the savepoint is the tree again, so rows of the tree can be in the spill file.
func (o *oldRows) end(rolledBack bool) {
	if o != nil {
		o.inTree = o.inTree || rolledBack && o.written
		o.list, o.bytes, o.written = nil, 0, false
		if o.failed {
			o.stuck.Store(&stuckRows{o.stuck.Load().err, time.Now()})
			o.failed = false
		}
	}
}

// addLeaf adds a leaf of the savepoint that has left the tree. next is the clone that replaces it, or nil.
func (o *oldRows) addLeaf(l, next *leaf) {
	if o == nil {
		return
	}
	p := l.page.Load()
	if p == nil {
		return
	}
	old := oldLeaf{leaf: l}
	if next != nil {
		old.next = weak.Make(next)
		o.bytes += p.overhead()
	} else {
		o.bytes += p.memoryBytes()
	}
	o.list = append(o.list, old)
}

// addBytes counts n bytes of lines that the transaction has replaced or deleted. An old version of their page may still hold
// these lines in memory.
func (o *oldRows) addBytes(n int) {
	if o != nil {
		o.bytes += int64(n)
	}
}

// enforceLimit moves old rows to the spill file if they use too much memory. If that fails, enforceLimit does not try again in
// this transaction. live is the number of bytes of the tree's lines.
func (o *oldRows) enforceLimit(live int64) {
	if o == nil || o.bytes <= o.retryAt || o.failed {
		return
	}
	slack := max(o.least, max(o.before, live)/slackShare)
	limit := max(o.before-live, 0) + slack
	if o.bytes <= limit {
		return
	}
	o.recount()
	target := limit - slack/2
	if o.bytes > target {
		err := o.spillTo(target, max(o.before, live))
		if o.failed = err != nil; o.failed {
			o.stuck.Store(&stuckRows{err: fmt.Errorf("move old rows to a file in %s: %w", o.folder, err)})
		} else {
			o.stuck.Store(nil)
		}
	}
	if o.retryAt = 0; o.bytes > target {
		o.retryAt = o.bytes + slack/4
	}
}

// spillTo moves old rows to the spill file until the old rows in memory use at most target bytes. fileBytes is the
// approximate size of feedback.json.
func (o *oldRows) spillTo(target, fileBytes int64) error {
	if err := o.checkRoom(o.bytes-target, fileBytes); err != nil {
		return err
	}
	if err := o.open(); err != nil {
		return volume.WithHint(err)
	}
	return volume.WithHint(o.spillUntil(target))
}

// recount removes from the list the leaves whose page is not in memory, and counts the bytes of the other leaves.
func (o *oldRows) recount() {
	kept := o.list[:0]
	o.bytes = 0
	for _, old := range o.list {
		if p := old.leaf.page.Load(); p != nil {
			kept, o.bytes = append(kept, old), o.bytes+old.ownBytes(p)
		}
	}
	clear(o.list[len(kept):])
	o.list = kept
}

// spillUntil moves old rows to the spill file. It stops when the old rows in memory use at most target bytes, or when no other
// page is worth a move. It begins with the pages that were changed first, because these pages are the least likely to change
// again.
func (o *oldRows) spillUntil(target int64) error {
	o.shown.Store(o.file)
	for _, old := range o.list {
		if o.bytes <= target {
			break
		}
		p := old.leaf.page.Load()
		before, own := old.ownBytes(p), len(p.ownLines)
		var err error
		switch {
		case old.leaf.extent != nil && old.leaf.extent.Damaged():
			continue // the spill file is damaged, so the page in memory is the only good copy
		case 4*before > 3*int64(p.live): // eviction of the whole page writes p.live bytes, and frees more than three quarters of this number
			err = o.evict(old.leaf, p)
		case own > p.live/leastOwnShare:
			err = o.evictOwnLines(old.leaf, p)
		default:
			continue
		}
		if err != nil {
			return err
		}
		o.written = true
		o.bytes -= before
		if p := old.leaf.page.Load(); p != nil {
			o.bytes += old.ownBytes(p)
		}
	}
	return nil
}

// checkRoom returns an error if the volume lacks room for n more bytes. Old rows leave as much space free as kept states do
// (see retention.Budget.Excess): a fifth of the volume or twice the size of feedback.json, whichever is more. The next
// versions of feedback.json need this space.
func (o *oldRows) checkRoom(n, fileBytes int64) error {
	u, err := o.measure(o.folder)
	if err != nil {
		return err
	}
	if reserve := max(u.Size/5, 2*fileBytes); u.Free-n < reserve {
		return fmt.Errorf("they need %d bytes, but that volume has %d bytes free, and %d must stay free; free some space there, or use a larger volume", n, u.Free, reserve)
	}
	return nil
}

// mayBeInTree reports whether rows of the tree may be in the spill file.
func (o *oldRows) mayBeInTree() bool { return o != nil && o.inTree }

// usage returns how much of the spill file is in use, and why old rows stay in memory. Any goroutine may call it.
func (o *oldRows) usage() (u Usage) {
	if f := o.shown.Load(); f != nil {
		u.Spilled = f.Size()
	}
	if s := o.stuck.Load(); s != nil && (s.ended.IsZero() || time.Since(s.ended) < stuckShown) {
		u.Err = s.err
	}
	return u
}

// sharesLines reports whether p, the page of l, shares its buffer of lines with the page of l.next, the clone that replaced
// the leaf.
func (l *oldLeaf) sharesLines(p *page) bool {
	next := l.next.Value()
	if next == nil {
		return false
	}
	q := next.page.Load()
	return q != nil && len(q.lines) > 0 && len(p.lines) > 0 && &q.lines[0] == &p.lines[0]
}

// ownBytes returns how many bytes of memory p uses, without the lines that p shares with the page of l.next. p is the page
// of the leaf.
func (l *oldLeaf) ownBytes(p *page) int64 {
	if l.sharesLines(p) {
		return p.overhead() + int64(cap(p.ownLines))
	}
	return p.memoryBytes()
}
