package snapshot

import "slices"

// seen records which rows of a leaf the open reload has brought. It is kept beside the page: a reload that brings all rows as they
// were changes no leaf, and needs no page in memory at its end.
type seen struct {
	load  uint64 // number of the Load; those of an earlier one, which was rolled back, do not count
	rows  []bool
	count int // number of rows that are true
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
