package snapshot

import (
	"slices"

	"capture/snapshot/spill"
)

// spiller writes pages to the spill file. It opens the file before it writes the first page. Only the writer uses a spiller.
type spiller struct {
	folder   string
	onDamage func(error)
	file     *spill.File // nil until the first page is written
	scratch  []byte
	corrupt  bool // whether pages of the tree may be in an earlier spill file that is damaged
}

// open opens the spill file if there is none.
func (s *spiller) open() error {
	if s.file != nil {
		return nil
	}
	f, err := spill.Open(s.folder, s.onDamage)
	if err != nil {
		return err
	}
	s.file = f
	return nil
}

// resetIfCorrupt reports whether pages of the tree may be unreadable. If the spill file is damaged, pages are written to a new
// file from now on.
func (s *spiller) resetIfCorrupt() bool {
	if s == nil {
		return false
	}
	if s.file != nil && s.file.Damaged() {
		s.file, s.corrupt = nil, true
	}
	return s.corrupt
}

// evict removes p, the page of l, from memory. If the spill file does not have the page yet, evict first writes it there.
// Readers of Views depend on the order of the assignments; see leaf.page.
func (s *spiller) evict(l *leaf, p *page) error {
	if l.extent == nil {
		p, err := p.complete()
		if err != nil {
			return err
		}
		s.scratch = appendPage(s.scratch[:0], p)
		extent, err := s.file.Write(s.scratch, l.live)
		if cap(s.scratch) > 1<<20 {
			s.scratch = nil // do not keep the memory of one huge row
		}
		if err != nil {
			return err
		}
		l.extent, l.first = extent, append([]byte(nil), p.key(0)...)
		l.epoch = 0 // so that a later change clones the leaf, because the extent keeps the old rows
	}
	l.page.Store(nil)
	return nil
}

// evictOwnLines writes the private lines of p, the page of l, to the spill file, and removes them from memory. The rest of the
// page stays in memory.
func (s *spiller) evictOwnLines(l *leaf, p *page) error {
	extent, err := s.file.Write(p.ownLines, len(p.ownLines))
	if err != nil {
		return err
	}
	q := *p
	q.spilled = append(slices.Clip(p.spilled), extent)
	q.spilledBytes, q.ownLines = p.spilledBytes+len(p.ownLines), nil
	l.page.Store(&q)
	return nil
}
