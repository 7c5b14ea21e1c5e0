package snapshot

import (
	"sync/atomic"
	"weak"

	"capture/snapshot/spill"
)

// leaf is a run of consecutive rows. It stays in memory while its page may be in the spill file.
//
// Once a View shows a leaf, id, rows and live never change. Its page may be replaced at any time by another with the same rows:
// evicted, loaded again, or rebased. So readers load the pointer once and use that page; they never wait for the writer.
type leaf struct {
	id    uint64 // differs between any two states of a leaf that Views have shown
	epoch uint64 // the tree may change the leaf in place while this is the tree's epoch; the writer's
	rows  int
	live  int // bytes of the rows' lines, terminators included

	// page is nil while the rows are in the spill file only. The writer sets extent and first before it stores nil, and never
	// again; so a reader that loads nil finds both set.
	page   atomic.Pointer[page]
	extent *spill.Extent
	first  []byte // key of the first row

	seen *seen // rows that the open reload has brought; the writer's
}

var leafIDs atomic.Uint64

func newLeaf(epoch uint64) *leaf {
	l := &leaf{id: leafIDs.Add(1), epoch: epoch}
	l.page.Store(&page{})
	return l
}

// readPage returns the page, from the spill file if it is not in memory. A page from the file is the caller's alone.
func (l *leaf) readPage() (*page, error) {
	if p := l.page.Load(); p != nil {
		return p, nil
	}
	data, err := l.extent.Read()
	if err != nil {
		return nil, err
	}
	return decodePage(data, l.rows, l.live), nil
}

func (l *leaf) firstKey() []byte {
	if p := l.page.Load(); p != nil {
		return p.key(0)
	}
	return l.first
}

// clone returns a leaf that may be changed. p is the page of l.
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

// putRow replaces the row at index i if found is set, which means that this row has the key. Otherwise it inserts a row before
// it.
func (l *leaf) putRow(i int, found bool, key, line []byte) {
	l.page.Load().putRow(i, found, key, line)
	l.updateTotals()
}

func (l *leaf) deleteRow(i int) {
	l.page.Load().deleteRow(i)
	if l.seen != nil {
		l.seen.deleteRow(i)
	}
	l.updateTotals()
}

// deleteUnseen deletes the rows that are not in s.
func (l *leaf) deleteUnseen(s *seen) {
	p := l.page.Load()
	kept := p.entries[:0]
	p.live = 0
	for i, e := range p.entries {
		if s.rows[i] {
			kept = append(kept, e)
			p.live += int(e.lineLen) + len(terminator)
		}
	}
	p.entries = kept
	l.updateTotals()
}

// splitAt moves the rows from index i on into a new leaf.
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
