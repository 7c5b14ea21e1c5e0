package snapshot

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"
)

// How the rows lie: a table is a list of groups, a group a list of segments, a segment some rows in key order. A change
// costs what its own segment costs, whatever the table's size; a View copies the list of groups alone.
const (
	defaultSegmentBytes = 64 << 10 // of lines in a segment, about
	defaultGroupSize    = 512      // segments in a group, at most
)

// terminator parts the lines. It lies in memory behind each, so that runs of rows are written as they are.
const terminator = ",\n"

// entry says where a row's key and line lie in its segment. No pointers: the collector passes over the rows.
type entry struct {
	koff, klen uint32 // klen also holds seen
	off, n     uint32 // the line, without its terminator
}

// seen, in klen, marks a row that the open Load has brought again. No key is as long.
const seen = 1 << 31

// segment is some consecutive rows. Its buffers only ever grow at their ends: a clone shares them, since an older
// version never looks beyond its own length. Only the newest version is appended to.
type segment struct {
	id    uint64 // no two states of a segment that a View has shown have the same
	epoch uint64 // the Table may change it while this is the Table's own epoch
	keys  []byte
	buf   []byte // lines, each with its terminator; also those that no entry points at any more
	rows  []entry
	live  int // bytes of buf that entries point at, terminators included
}

var segmentIDs atomic.Uint64

func newSegment(epoch uint64) *segment { return &segment{id: segmentIDs.Add(1), epoch: epoch} }

func (s *segment) key(i int) []byte {
	e := &s.rows[i]
	end := e.koff + e.klen&^seen
	return s.keys[e.koff:end:end]
}

func (s *segment) line(i int) []byte {
	e := &s.rows[i]
	return s.buf[e.off : e.off+e.n : e.off+e.n]
}

// find is the place of key, and whether it is there.
func (s *segment) find(key []byte) (int, bool) {
	n := len(s.rows)
	if n == 0 {
		return 0, false
	}
	if c := bytes.Compare(key, s.key(n-1)); c >= 0 { // most rows come in key order
		if c == 0 {
			return n - 1, true
		}
		return n, false
	}
	lo, hi := 0, n-1
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if bytes.Compare(s.key(m), key) < 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, bytes.Equal(s.key(lo), key)
}

func (s *segment) clone(epoch uint64) *segment {
	rows := make([]entry, len(s.rows), len(s.rows)+len(s.rows)/8+4)
	copy(rows, s.rows)
	c := newSegment(epoch)
	c.keys, c.buf, c.rows, c.live = s.keys, s.buf, rows, s.live
	return c
}

// room makes place for one more line; the line of row skip (-1: none) is about to be replaced.
func (s *segment) room(n, skip int) {
	if n += len(terminator); len(s.buf)+n > cap(s.buf) {
		s.rebuild(n+min(max(s.live/2, 1<<10), 16<<10), skip)
	}
}

// rebuild lays the rows out anew, in order and without gaps, with place for as many more bytes of lines.
func (s *segment) rebuild(n, skip int) {
	keep := 0
	for i := range s.rows {
		keep += int(s.rows[i].klen &^ seen)
	}
	keys := make([]byte, 0, keep)
	buf := make([]byte, 0, s.live+n)
	for i := range s.rows {
		e := &s.rows[i]
		k, l := s.key(i), s.buf[e.off:e.off+e.n+uint32(len(terminator))]
		e.koff, e.off = uint32(len(keys)), uint32(len(buf))
		keys = append(keys, k...)
		if i != skip {
			buf = append(buf, l...)
		}
	}
	s.keys, s.buf = keys, buf
}

// put sets a row at place i; found says that the row there has the key already.
func (s *segment) put(i int, found bool, key, line []byte) {
	n := uint32(len(line))
	if found {
		s.live -= int(s.rows[i].n) + len(terminator)
		s.room(len(line), i)
		s.rows[i].off, s.rows[i].n = uint32(len(s.buf)), n
	} else {
		s.room(len(line), -1)
		e := entry{koff: uint32(len(s.keys)), klen: uint32(len(key)), off: uint32(len(s.buf)), n: n}
		s.keys = append(s.keys, key...)
		s.rows = append(s.rows, entry{})
		copy(s.rows[i+1:], s.rows[i:])
		s.rows[i] = e
	}
	s.buf = append(append(s.buf, line...), terminator...)
	s.live += len(line) + len(terminator)
}

// delete takes row i out.
func (s *segment) delete(i int) {
	s.live -= int(s.rows[i].n) + len(terminator)
	s.rows = append(s.rows[:i], s.rows[i+1:]...)
	if len(s.buf) > 2*s.live+4<<10 {
		s.rebuild(0, -1)
	}
}

// sweep drops the rows that are not marked as seen, and the marks of the others.
func (s *segment) sweep() {
	kept := s.rows[:0]
	s.live = 0
	for _, e := range s.rows {
		if e.klen&seen != 0 {
			e.klen &^= seen
			kept = append(kept, e)
			s.live += int(e.n) + len(terminator)
		}
	}
	s.rows = kept
}

// split moves the rows from i on into a new segment.
func (s *segment) split(i int) *segment {
	t := newSegment(s.epoch)
	t.keys, t.buf, t.rows = s.keys, s.buf, append([]entry(nil), s.rows[i:]...)
	for j := range t.rows {
		t.live += int(t.rows[j].n) + len(terminator)
	}
	t.rebuild(0, -1)
	s.rows = s.rows[:i]
	s.live -= t.live
	s.rebuild(0, -1)
	return t
}

// middle is the row at which a split halves the bytes; never 0, never the end.
func (s *segment) middle() int {
	sum := 0
	for i := range s.rows[:len(s.rows)-1] {
		sum += int(s.rows[i].n) + len(terminator)
		if 2*sum >= s.live {
			return i + 1
		}
	}
	return len(s.rows) - 1
}

// prefix is the first eight bytes of a key as a number, so that most comparisons touch one array only.
func prefix(key []byte) uint64 {
	if len(key) >= 8 {
		return binary.BigEndian.Uint64(key)
	}
	var b [8]byte
	copy(b[:], key)
	return binary.BigEndian.Uint64(b[:])
}

// group is some consecutive segments, none of them empty.
type group struct {
	epoch  uint64
	segs   []*segment
	firsts []uint64 // prefixes of the segments' first keys
}

func (g *group) clone(epoch uint64) *group {
	return &group{
		epoch:  epoch,
		segs:   append(make([]*segment, 0, len(g.segs)+8), g.segs...),
		firsts: append(make([]uint64, 0, len(g.firsts)+8), g.firsts...),
	}
}

// find is the last segment whose first key is not above key, or the first segment.
func (g *group) find(key []byte) int {
	p := prefix(key)
	lo, hi := 0, len(g.segs) // the answer is lo-1
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if g.firsts[m] < p || g.firsts[m] == p && bytes.Compare(g.segs[m].key(0), key) <= 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return max(lo-1, 0)
}

func (g *group) insert(i int, s *segment) {
	g.segs = append(g.segs, nil)
	copy(g.segs[i+1:], g.segs[i:])
	g.segs[i] = s
	g.firsts = append(g.firsts, 0)
	copy(g.firsts[i+1:], g.firsts[i:])
	g.firsts[i] = prefix(s.key(0))
}

func (g *group) remove(i int) {
	g.segs = append(g.segs[:i], g.segs[i+1:]...)
	g.firsts = append(g.firsts[:i], g.firsts[i+1:]...)
}

// findGroup is the last group whose first key is not above key, or the first group; 0 where there is none.
func findGroup(groups []*group, key []byte) int {
	p := prefix(key)
	lo, hi := 0, len(groups)
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		g := groups[m]
		if g.firsts[0] < p || g.firsts[0] == p && bytes.Compare(g.segs[0].key(0), key) <= 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return max(lo-1, 0)
}

// find is the line of key, or nil.
func find(groups []*group, key []byte) []byte {
	if len(groups) == 0 {
		return nil
	}
	g := groups[findGroup(groups, key)]
	s := g.segs[g.find(key)]
	if i, ok := s.find(key); ok {
		return s.line(i)
	}
	return nil
}
