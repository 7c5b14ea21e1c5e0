package snapshot

import "slices"

// seen records which rows of a leaf the open reload has seen. It is not part of the page, so a reload of unchanged rows changes
// no leaf, and its sweep needs no page in memory.
type seen struct {
	load  uint64 // number of the Load; a record of an earlier Load, which was rolled back, is ignored
	rows  []bool
	count int // number of true values in rows
}

func (s *seen) setRow(i int) {
	if !s.rows[i] {
		s.rows[i] = true
		s.count++
	}
}

func (s *seen) insertRow(i int) {
	s.rows = slices.Insert(s.rows, i, true)
	s.count++
}

func (s *seen) deleteRow(i int) {
	if s.rows[i] {
		s.count--
	}
	s.rows = slices.Delete(s.rows, i, i+1)
}

func (s *seen) splitAt(i int) *seen {
	next := &seen{load: s.load, rows: slices.Clone(s.rows[i:])}
	for _, row := range next.rows {
		if row {
			next.count++
		}
	}
	s.rows, s.count = s.rows[:i], s.count-next.count
	return next
}
