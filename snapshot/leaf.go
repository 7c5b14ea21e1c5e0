package snapshot

import (
	"sync/atomic"
	"weak"

	"capture/snapshot/spill"
)

// leaf is a run of consecutive rows. A leaf is always in memory, but its page may be only in the spill file.
//
// Once a View shows a leaf, its id, rows and live never change. Its page may be evicted, loaded again or rebased at any time,
// but the rows stay the same. A reader therefore loads leaf.page once and uses the page that it gets. Readers never wait for
// the writer.
type leaf struct {
	id    uint64 // identifies the rows: if Views show two leaves with the same id, these leaves have the same rows
	epoch uint64 // epoch in which the tree may change the leaf in place; used only by the writer
	rows  int
	live  int // bytes of the rows' lines, terminators included

	// page is nil while the rows are only in the spill file. The writer sets extent and first before it stores nil for the
	// first time, and never changes them afterwards. A reader that loads nil therefore finds both set.
	page   atomic.Pointer[page]
	extent *spill.Extent
	first  []byte // key of the first row

	seen *seen // rows that the open reload has seen; used only by the writer
}

var leafIDs atomic.Uint64

func newLeaf(epoch uint64) *leaf {
	l := &leaf{id: leafIDs.Add(1), epoch: epoch}
	l.page.Store(&page{})
	return l
}

// readPage returns the page of l. If all or some of its lines are only in the spill file, readPage returns a copy with these
// lines in memory, for the caller alone.
func (l *leaf) readPage() (*page, error) {
	if p := l.page.Load(); p != nil {
		return p.complete()
	}
	data, err := l.extent.Read()
	if err != nil {
		return nil, err
	}
	return decodePage(data, l.rows, l.live), nil
}

// readKeys returns a page with the keys of l and without lines. The page of l must be in the spill file.
func (l *leaf) readKeys() (*page, error) {
	data, err := l.extent.ReadRest()
	if err != nil {
		return nil, err
	}
	return decodeKeys(data, l.rows), nil
}

func (l *leaf) firstKey() []byte {
	if p := l.page.Load(); p != nil {
		return p.key(0)
	}
	return l.first
}

// clone returns a copy of l that may be changed. p is the page of l.
func (l *leaf) clone(epoch uint64, p *page) *leaf {
	c := &leaf{id: leafIDs.Add(1), epoch: epoch, rows: l.rows, live: l.live}
	q := p.clone()
	for _, older := range p.older {
		if older.Value() != nil {
			q.older = append(q.older, older)
		}
	}
	q.older = append(q.older, weak.Make(l))
	c.page.Store(q)
	return c
}

// putRow puts a row into l. If found is set, the row at index i has the given key, and putRow replaces its line. Otherwise
// putRow inserts a new row before index i.
func (l *leaf) putRow(i int, found bool, key, line []byte) {
	l.page.Load().putRow(i, found, key, line)
	l.updateTotals()
}

func (l *leaf) replaceLines(indices, ends []int, lines []byte) {
	l.page.Load().replaceLines(indices, ends, lines)
	l.updateTotals()
}

func (l *leaf) deleteRow(i int) {
	l.page.Load().deleteRow(i)
	if l.seen != nil {
		l.seen.deleteRow(i)
	}
	l.updateTotals()
}

// deleteUnseen deletes the rows that s does not record as seen.
func (l *leaf) deleteUnseen(s *seen) {
	p := l.page.Load()
	kept := p.entries[:0]
	p.live = 0
	for i, e := range p.entries {
		if s.hasRow(i) {
			kept = append(kept, e)
			p.live += int(e.lineLen) + len(terminator)
		}
	}
	p.entries = kept
	l.updateTotals()
}

// splitAt moves the rows from index i on into a new leaf, and returns it.
func (l *leaf) splitAt(i int) *leaf {
	next := newLeaf(l.epoch)
	next.page.Store(l.page.Load().splitAt(i))
	if l.seen != nil {
		next.seen = l.seen.splitAt(i)
	}
	l.updateTotals()
	next.updateTotals()
	return next
}

func (l *leaf) updateTotals() {
	p := l.page.Load()
	l.rows, l.live = len(p.entries), p.live
}
