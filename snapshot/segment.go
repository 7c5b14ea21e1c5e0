package snapshot

import (
	"bytes"
	"math"
	"slices"
	"sync/atomic"
	"weak"

	"capture/snapshot/spill"
)

// How the rows lie: a table is a list of groups, a group a list of segments, a segment some rows in key order. A change
// costs what its own segment costs, whatever the table's size; a View copies the list of groups alone.
const (
	defaultSegmentBytes = 64 << 10 // of lines in a segment, about
	defaultGroupSize    = 512      // segments in a group, at most
)

// terminator parts the lines. It lies in memory behind each, so that runs of rows are written as they are.
const terminator = ",\n"

// segment is some consecutive rows. All that others than the Table's writer see of it is settled when a View first shows
// it, but for whether its content is in memory: see memory.go.
type segment struct {
	id    uint64 // no two states of a segment that a View has shown have the same
	epoch uint64 // the Table may change it while this is the Table's own epoch
	n     int    // rows
	live  int    // bytes of the rows' lines, terminators included

	content atomic.Pointer[body] // nil while it is in the spill file alone
	out     *spill.Extent        // where it is in the spill file, once it was written there; settled before content becomes nil
	first   []byte               // the first key, from then on

	marks *marks // the writer's alone
}

var segmentIDs atomic.Uint64

func newSegment(epoch uint64) *segment {
	s := &segment{id: segmentIDs.Add(1), epoch: epoch}
	s.content.Store(&body{})
	return s
}

// read is the content, read back where it is not in memory. What was read back is the caller's alone.
func (s *segment) read() (*body, error) {
	if b := s.content.Load(); b != nil {
		return b, nil
	}
	data, err := s.out.Read()
	if err != nil {
		return nil, err
	}
	return decodeBody(data, s.n, s.live), nil
}

func (s *segment) firstKey() []byte {
	if b := s.content.Load(); b != nil {
		return b.key(0)
	}
	return s.first
}

// clone is a copy that may be changed; b is the content of s.
func (s *segment) clone(epoch uint64, b *body) *segment {
	c := &segment{id: segmentIDs.Add(1), epoch: epoch, n: s.n, live: s.live}
	content := b.clone()
	for _, older := range b.was {
		if older.Value() != nil {
			content.was = append(content.was, older)
		}
	}
	content.was = append(content.was, weak.Make(s))
	c.content.Store(content)
	return c
}

// put sets a row at place i; found says that the row there has the key already.
func (s *segment) put(i int, found bool, key, line []byte) {
	b := s.content.Load()
	b.put(i, found, key, line)
	s.n, s.live = len(b.rows), b.live
}

// delete takes row i out.
func (s *segment) delete(i int) {
	b := s.content.Load()
	b.delete(i)
	if s.marks != nil {
		s.marks.delete(i)
	}
	s.n, s.live = len(b.rows), b.live
}

// sweep drops the rows that are not marked.
func (s *segment) sweep(m *marks) {
	b := s.content.Load()
	kept := b.rows[:0]
	b.live = 0
	for i, e := range b.rows {
		if m.rows[i] {
			kept = append(kept, e)
			b.live += int(e.n) + len(terminator)
		}
	}
	b.rows = kept
	s.n, s.live = len(b.rows), b.live
}

// split moves the rows from i on into a new segment.
func (s *segment) split(i int) *segment {
	b := s.content.Load()
	t := newSegment(s.epoch)
	t.content.Store(b.split(i))
	if s.marks != nil {
		t.marks = s.marks.split(i)
	}
	for _, s := range []*segment{s, t} {
		b := s.content.Load()
		s.n, s.live = len(b.rows), b.live
	}
	return t
}

// middle is the row at which a split halves the bytes; never 0, never the end.
func (s *segment) middle() int {
	sum, rows := 0, s.content.Load().rows
	for i := range rows[:len(rows)-1] {
		sum += int(rows[i].n) + len(terminator)
		if 2*sum >= s.live {
			return i + 1
		}
	}
	return len(rows) - 1
}

// body is the content of a segment. Its buffers only ever grow at their ends: a clone shares them, since an older version
// never looks beyond its own length. Only the newest version is appended to.
type body struct {
	keys []byte
	buf  []byte // lines, each with its terminator; also those that no entry points at any more
	past []byte // more lines, which no newer version has: see follow
	rows []entry
	live int                     // bytes that entries point at, terminators included
	used bool                    // since the clock's hand last came by; the writer's alone
	was  []weak.Pointer[segment] // older versions that may share buf, as long as Views show them; the writer's alone
}

// entry says where a row's key and line lie in its segment. No pointers: the collector passes over the rows.
type entry struct {
	koff, klen uint32
	off, n     uint32 // the line, without its terminator; from the end of buf on, it lies in past
}

func (b *body) key(i int) []byte {
	e := &b.rows[i]
	end := e.koff + e.klen
	return b.keys[e.koff:end:end]
}

func (b *body) line(i int) []byte {
	l := b.terminated(i)
	n := len(l) - len(terminator)
	return l[:n:n]
}

// terminated is the line with its terminator.
func (b *body) terminated(i int) []byte {
	e, buf := &b.rows[i], b.buf
	off := int(e.off)
	if off >= len(buf) {
		off, buf = off-len(buf), b.past
	}
	return buf[off : off+int(e.n)+len(terminator)]
}

// find is the place of key, and whether it is there.
func (b *body) find(key []byte) (int, bool) {
	n := len(b.rows)
	if n == 0 {
		return 0, false
	}
	if c := bytes.Compare(key, b.key(n-1)); c >= 0 { // most rows come in key order
		if c == 0 {
			return n - 1, true
		}
		return n, false
	}
	lo, hi := 0, n-1
	for lo < hi {
		m := int(uint(lo+hi) >> 1)
		if bytes.Compare(b.key(m), key) < 0 {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo, bytes.Equal(b.key(lo), key)
}

func (b *body) clone() *body {
	rows := make([]entry, len(b.rows), len(b.rows)+len(b.rows)/8+4)
	copy(rows, b.rows)
	c := &body{keys: b.keys, buf: b.buf, past: b.past, rows: rows, live: b.live, used: true}
	if c.past != nil { // it is changed again, after a Rollback
		c.rebuild(0, -1)
	}
	return c
}

// room makes place for one more line; the line of row skip (-1: none) is about to be replaced.
func (b *body) room(n, skip int) {
	if n += len(terminator); len(b.buf)+n > cap(b.buf) {
		b.rebuild(spare(b.live+n, n)-b.live, skip)
	}
}

// spare is the capacity of a buffer that is to hold n bytes and some more lines of that length. A large one gets a little
// where the lines are short, lest each change makes another, and what Go allocates in any case, which is whole pages: a
// quarter more in each would be a quarter more in all.
func spare(n, line int) int {
	switch {
	case n < 32<<10:
		return n + min(max(n/2, 1<<10), 16<<10)
	case 4*line <= n/fillSlack:
		n += n / fillSlack
	}
	return allocated(n)
}

// allocated is what Go allocates for n bytes, about.
func allocated(n int) int {
	const page = 8 << 10
	if n <= 32<<10 {
		return n
	}
	return (n + page - 1) &^ (page - 1)
}

// rebuild lays the rows out anew, in order and without gaps, with place for as many more bytes of lines; the line of row skip
// is left out. Older versions go along.
func (b *body) rebuild(n, skip int) {
	keep := 0
	for i := range b.rows {
		keep += int(b.rows[i].klen)
	}
	keys := make([]byte, 0, keep)
	buf := make([]byte, 0, b.live+n)
	rows := make([]entry, len(b.rows), cap(b.rows))
	for i := range b.rows {
		rows[i] = entry{uint32(len(keys)), b.rows[i].klen, uint32(len(buf)), b.rows[i].n}
		keys = append(keys, b.key(i)...)
		if i != skip {
			buf = append(buf, b.terminated(i)...)
		}
	}
	from := *b
	b.keys, b.buf, b.past, b.rows = keys, buf, nil, rows
	for _, older := range b.was {
		if s := older.Value(); s != nil {
			if was := s.content.Load(); was != nil && was.follows(&from, b) {
				s.content.Store(was.follow(&from, b, skip))
			}
		}
	}
}

// follows says whether b has its lines where from has them, so that it can go along: see follow. One of which much has
// changed stays where it is, for it would take the same time with each change that follows; and so does one whose lines an
// entry could not tell the place of.
func (b *body) follows(from, to *body) bool {
	const share = 4
	return len(b.buf) > 0 && len(from.buf) > 0 && &b.buf[0] == &from.buf[0] && len(b.past) <= b.live/share &&
		int64(len(to.buf))+int64(b.live) < math.MaxUint32
}

// follow is b, an older version, when the newest one has gone from its old buffer (from) to another (to), without the line of
// row skip: b goes along, and has for itself the lines alone that the newest version has no more. So what a View shows
// takes as much memory again as has changed since, and not a whole segment for each row.
func (b *body) follow(from, to *body, skip int) *body {
	const own = ^uint32(0)
	f := &body{keys: b.keys, buf: slices.Clip(to.buf), rows: slices.Clone(b.rows), live: b.live, used: b.used}
	i, past := 0, 0
	for j := range f.rows {
		e := &f.rows[j]
		for i < len(from.rows) && from.rows[i].off != e.off && bytes.Compare(from.key(i), b.key(j)) < 0 {
			i++
		}
		if i < len(from.rows) && i != skip && from.rows[i].off == e.off && int(e.off) < len(b.buf) {
			e.off = to.rows[i].off
		} else {
			e.off = own
			past += int(e.n) + len(terminator)
		}
	}
	f.past = make([]byte, 0, past)
	for j := range f.rows {
		if e := &f.rows[j]; e.off == own {
			e.off = uint32(len(f.buf) + len(f.past))
			f.past = append(f.past, b.terminated(j)...)
		}
	}
	return f
}

func (b *body) put(i int, found bool, key, line []byte) {
	n := uint32(len(line))
	if found {
		b.live -= int(b.rows[i].n) + len(terminator)
		b.room(len(line), i)
		b.rows[i].off, b.rows[i].n = uint32(len(b.buf)), n
	} else {
		b.room(len(line), -1)
		e := entry{koff: uint32(len(b.keys)), klen: uint32(len(key)), off: uint32(len(b.buf)), n: n}
		b.keys = append(b.keys, key...)
		b.rows = append(b.rows, entry{})
		copy(b.rows[i+1:], b.rows[i:])
		b.rows[i] = e
	}
	b.buf = append(append(b.buf, line...), terminator...)
	b.live += len(line) + len(terminator)
}

func (b *body) delete(i int) {
	b.live -= int(b.rows[i].n) + len(terminator)
	b.rows = append(b.rows[:i], b.rows[i+1:]...)
	if len(b.buf) > 2*b.live+4<<10 {
		b.rebuild(0, -1)
	}
}

func (b *body) split(i int) *body {
	t := &body{keys: b.keys, buf: b.buf, rows: slices.Clone(b.rows[i:]), used: true}
	for j := range t.rows {
		t.live += int(t.rows[j].n) + len(terminator)
	}
	t.rebuild(0, -1)
	b.rows = b.rows[:i]
	b.live -= t.live
	b.was = nil // they have the rows of both
	b.rebuild(0, -1)
	return t
}
