package snapshot

import "math/bits"

// seen records which rows of a leaf the open reload has seen. It is not part of the page. A reload of unchanged rows
// therefore changes no page, and its sweep needs no page in memory.
type seen struct {
	load  uint64 // number of the Load that made this record; records of Loads that were rolled back are ignored
	bits  []uint64
	rows  int // number of rows, and of bits in use; the bits after them are 0
	count int // number of bits that are set
}

// newSeen returns a record for the given number of rows, none of which has been seen.
func newSeen(load uint64, rows int) *seen {
	return &seen{load: load, bits: make([]uint64, (rows+63)/64), rows: rows}
}

func (s *seen) hasRow(i int) bool { return s.bits[i/64]>>(i%64)&1 != 0 }

func (s *seen) setRow(i int) {
	if !s.hasRow(i) {
		s.bits[i/64] |= 1 << (i % 64)
		s.count++
	}
}

// insertRow inserts a row before index i, and records it as seen.
func (s *seen) insertRow(i int) {
	if s.rows%64 == 0 {
		s.bits = append(s.bits, 0)
	}
	s.rows++
	w, low := i/64, uint64(1)<<(i%64)-1 // low is a mask of the bits below bit i%64
	carry := s.bits[w] >> 63
	s.bits[w] = s.bits[w]&low | s.bits[w]&^low<<1
	for w++; w < len(s.bits); w++ {
		s.bits[w], carry = s.bits[w]<<1|carry, s.bits[w]>>63
	}
	s.setRow(i)
}

func (s *seen) deleteRow(i int) {
	if s.hasRow(i) {
		s.count--
	}
	w, low := i/64, uint64(1)<<(i%64)-1
	s.bits[w] = s.bits[w]&low | s.bits[w]>>1&^low
	for ; w+1 < len(s.bits); w++ {
		s.bits[w] |= s.bits[w+1] << 63
		s.bits[w+1] >>= 1
	}
	s.rows--
	s.bits = s.bits[:(s.rows+63)/64]
}

// appendRows appends the rows of another record.
func (s *seen) appendRows(next *seen) {
	for i := range next.rows {
		s.appendRow(next.hasRow(i))
	}
}

func (s *seen) appendRow(wasSeen bool) {
	if s.rows%64 == 0 {
		s.bits = append(s.bits, 0)
	}
	s.rows++
	if wasSeen {
		s.setRow(s.rows - 1)
	}
}

// splitAt removes the rows from index i on, and returns a seen that contains these rows.
func (s *seen) splitAt(i int) *seen {
	next := newSeen(s.load, 0)
	for i+next.rows < s.rows {
		next.appendRow(s.hasRow(i + next.rows))
	}
	s.rows = i
	s.bits = s.bits[:(i+63)/64]
	if i%64 != 0 {
		s.bits[i/64] &= 1<<(i%64) - 1
	}
	s.count = 0
	for _, w := range s.bits {
		s.count += bits.OnesCount64(w)
	}
	return next
}
