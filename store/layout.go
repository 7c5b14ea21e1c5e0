package store

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"sort"

	"capture/snapshot"
)

// A large file is not written anew for each change. Its rows keep their places from one version to the next, so that only
// the ranges around what changed differ: a Part of the table has a region of the file, which may be longer than its rows.
// What is left over is filled with spaces before the closing brace of the region's last row, where no reader of whole
// lines, of JSON or of both sees them.

// layout is a file: where the Parts of a View lie in it. The places never change.
type layout struct {
	regions []region        // one after the other; the last one is exactly as long as its rows
	parts   []snapshot.Part // what lies there; nil where only the places matter any more, lest the rows stay in memory
	bytes   int64           // of the whole file
}

// region is the place of one Part.
type region struct {
	part uint64 // its ID
	off  int64
	size int64
}

func (r region) end() int64 { return r.off + r.size }

const (
	opening   = "[\n"
	closing   = "]\n"
	emptyFile = "[]\n"
	rowEnd    = "},\n" // the last row has no comma
)

// places is l without the rows.
func (l *layout) places() *layout { return &layout{regions: l.regions, bytes: l.bytes} }

// newLayout lays parts out one after the other, with slack in each.
func newLayout(parts []snapshot.Part, slack slack) *layout {
	if len(parts) == 0 {
		return &layout{bytes: int64(len(emptyFile))}
	}
	l := &layout{regions: make([]region, 0, len(parts)), parts: parts}
	l.placeTail(parts, slack)
	return l
}

// slack is the share of a region that is to be free, as a divisor of its rows' bytes; 0 for none.
type slack int64

// A small file has no slack. A large one has some from the start: without, the first row to grow would find no room up to
// the file's end, and all behind it would be written again.
const (
	exact slack = 0
	roomy slack = 32
)

func (s slack) of(n int64) int64 {
	if s == exact {
		return 0
	}
	return n / int64(s)
}

// at is where the next region begins.
func (l *layout) at() int64 {
	if len(l.regions) == 0 {
		return int64(len(opening))
	}
	return l.regions[len(l.regions)-1].end()
}

func (l *layout) add(p snapshot.Part, size int64) {
	l.regions = append(l.regions, region{p.ID(), l.at(), size})
}

// placeTail adds the last parts of the file.
func (l *layout) placeTail(parts []snapshot.Part, slack slack) {
	last := len(parts) - 1
	for _, p := range parts[:last] {
		n := int64(p.Bytes())
		l.add(p, n+slack.of(n))
	}
	l.add(parts[last], int64(parts[last].Bytes())-1)
	l.bytes = l.at() + int64(len(closing))
}

// placeWithin adds parts so that they fill size bytes, which are enough for them.
func (l *layout) placeWithin(parts []snapshot.Part, size int64) {
	free := size
	for _, p := range parts {
		free -= int64(p.Bytes())
	}
	for i, p := range parts {
		share := free / int64(len(parts)-i)
		free -= share
		l.add(p, int64(p.Bytes())+share)
	}
}

// next lays out parts, the next state of what l holds, with as many of them as possible where they are. It is nil where
// that would change more than half of a large file, or leave more than a fifth of it empty; rows is the bytes of all
// parts.
func (l *layout) next(parts []snapshot.Part, rows int64) *layout {
	if len(l.regions) == 0 || len(parts) == 0 {
		return nil
	}
	m := newMatch(l, parts)
	n := &layout{regions: make([]region, 0, len(parts)+1), parts: parts}
	n.regions = append(n.regions, l.regions[:m.head]...)
	changed, most := int64(0), max(l.bytes/2, 2*patchBytes)
	for i, j := m.head, m.head; j < len(parts) || i < len(l.regions); {
		if m.kept(i, j) {
			n.regions = append(n.regions, l.regions[i])
			i, j = i+1, j+1
			continue
		}
		s := m.stretch(i, j, most-changed)
		if s == nil {
			return nil
		}
		if changed += s.need; changed > most {
			return nil
		}
		switch {
		case s.regions < len(l.regions):
			n.placeWithin(parts[j:s.parts], s.room)
		case j == s.parts: // the last parts are gone: the one before them is the last now
			n.regions = n.regions[:len(n.regions)-1]
			n.placeTail(parts[j-1:], roomy)
		default:
			n.placeTail(parts[j:], roomy)
		}
		i, j = s.regions, s.parts
	}
	n.bytes = n.at() + int64(len(closing))
	if n.bytes > rows+rows/4+patchBytes/4 {
		return nil
	}
	return n
}

// match pairs the regions of a layout with the parts of the next state. Both are in the order of the keys.
type match struct {
	*layout    // the last one
	parts      []snapshot.Part
	head, tail int            // as many are the same at the start and at the end; the last ones are never in head
	place      map[uint64]int // of the regions in between, by their part
}

func newMatch(l *layout, parts []snapshot.Part) *match {
	m := &match{layout: l, parts: parts}
	was, now := len(l.regions), len(parts)
	least := min(was, now)
	for m.head < least-1 && l.regions[m.head].part == parts[m.head].ID() {
		m.head++
	}
	for m.tail < least-m.head && l.regions[was-1-m.tail].part == parts[now-1-m.tail].ID() {
		m.tail++
	}
	between := l.regions[m.head : was-m.tail]
	m.place = make(map[uint64]int, len(between))
	for i, r := range between {
		m.place[r.part] = m.head + i
	}
	return m
}

// find is the region that part j may keep, if there is one. The file's last region is kept as the last one only: its last
// row has no comma.
func (m *match) find(j int) (int, bool) {
	last := j == len(m.parts)-1
	if left := len(m.parts) - j; left <= m.tail {
		return len(m.regions) - left, true
	}
	i, ok := m.place[m.parts[j].ID()]
	return i, ok && !last && i != len(m.regions)-1
}

func (m *match) kept(i, j int) bool {
	if i == len(m.regions) || j == len(m.parts) {
		return false
	}
	at, ok := m.find(j)
	return ok && at == i
}

// stretch is a run of regions that is to be written anew: up to those numbers of regions and parts.
type stretch struct {
	regions, parts int
	room, need     int64 // bytes of the regions, and of the parts
}

// stretch is the shortest one from region i and part j on in which the parts fit, or the rest of the file; nil where the
// parts are more than most bytes.
func (m *match) stretch(i, j int, most int64) *stretch {
	s := &stretch{regions: i, parts: j}
	for {
		next := len(m.regions)
		for ; s.parts < len(m.parts); s.parts++ {
			if at, ok := m.find(s.parts); ok && at >= s.regions {
				next = at
				break
			}
			s.need += int64(m.parts[s.parts].Bytes())
		}
		for ; s.regions < next; s.regions++ {
			s.room += m.regions[s.regions].size
		}
		switch {
		case s.need > most:
			return nil
		case s.regions == len(m.regions) && s.parts == len(m.parts):
			return s
		case s.parts > j && s.need+s.spare(i) <= s.room:
			return s
		}
		// They don't fit: the next region's room is shared with them.
		s.need += int64(m.parts[s.parts].Bytes())
		s.room += m.regions[s.regions].size
		s.parts, s.regions = s.parts+1, s.regions+1
	}
}

// spare is what a stretch that shares the room of unchanged regions must leave, lest the next change shares it again.
func (s *stretch) spare(i int) int64 {
	if s.regions-i == 1 {
		return 0
	}
	return s.need / (4 * int64(roomy))
}

// appendRegion appends region i as it is in the file, with what comes before the first and after the last.
func (l *layout) appendRegion(b []byte, i int) (_ []byte, err error) {
	if len(l.parts) == 0 {
		return append(b, emptyFile...), nil
	}
	if i == 0 {
		b = append(b, opening...)
	}
	r, from := l.regions[i], len(b)
	if b, err = l.parts[i].AppendTo(b); err != nil {
		return b, err
	}
	if n := len(b) - from; n != l.parts[i].Bytes() || !bytes.HasSuffix(b, []byte(rowEnd)) {
		return b, fmt.Errorf("a part of the table has %d bytes where %d were counted", n, l.parts[i].Bytes())
	}
	if i == len(l.regions)-1 {
		return append(append(b[:len(b)-2], '\n'), closing...), nil
	}
	if free := int(r.size) - (len(b) - from); free > 0 {
		b = slices.Grow(b[:len(b)-len(rowEnd)], free+len(rowEnd))
		for range free {
			b = append(b, ' ')
		}
		b = append(b, rowEnd...)
	}
	return b, nil
}

// leave lets go of the rows of region i, which are not asked for again.
func (l *layout) leave(i int) {
	if len(l.parts) > 0 {
		l.parts[i] = snapshot.Part{}
	}
}

// count is the number of pieces that appendRegion knows.
func (l *layout) count() int { return max(len(l.regions), 1) }

// start is where the bytes of appendRegion(i) begin in the file.
func (l *layout) start(i int) int64 {
	if i == 0 {
		return 0
	}
	return l.regions[i].off
}

// length is how many bytes appendRegion(i) appends.
func (l *layout) length(i int) int64 {
	if i < len(l.regions)-1 {
		return l.start(i+1) - l.start(i)
	}
	return l.bytes - l.start(i)
}

// find is the piece in which the byte at off lies.
func (l *layout) find(off int64) int {
	return max(0, sort.Search(len(l.regions), func(i int) bool { return l.regions[i].off > off })-1)
}

// errEnd ends a walk early.
var errEnd = errors.New("end")

// walk calls f with the file's bytes from off on, piece by piece, until the file or errEnd ends it. What f gets is valid
// during the call; it lies in scratch, which is for the next walk again.
func (l *layout) walk(scratch *[]byte, off int64, f func(b []byte) error) (err error) {
	b := *scratch
	for i := l.find(off); i < l.count() && err == nil; i++ {
		if b, err = l.appendRegion(b[:0], i); err == nil {
			err = f(b[max(0, off-l.start(i)):])
		}
	}
	*scratch = b
	if err == errEnd {
		return nil
	}
	return err
}

// readAt fills p with the file's bytes from off on, and with zeros beyond its end.
func (l *layout) readAt(scratch *[]byte, p []byte, off int64) error {
	err := l.walk(scratch, off, func(b []byte) error {
		if p = p[copy(p, b):]; len(p) == 0 {
			return errEnd
		}
		return nil
	})
	clear(p)
	return err
}

// span is a range of a file's bytes.
type span struct{ from, to int64 }

// differences are the ranges of l that a file with the layout old lacks, widened to multiples of align, in order and apart.
// The last range may end beyond the end of the file.
func (l *layout) differences(old *layout, align int64) []span {
	var list []span
	add := func(from, to int64) {
		from, to = from/align*align, (to+align-1)/align*align
		if n := len(list); n > 0 && from <= list[n-1].to {
			list[n-1].to = max(list[n-1].to, to)
			return
		}
		list = append(list, span{from, to})
	}
	k := 0
	for i, r := range l.regions {
		for k < len(old.regions) && old.regions[k].off < r.off {
			k++
		}
		if k == len(old.regions) || old.regions[k] != r {
			add(l.start(i), r.end())
		}
	}
	if l.bytes != old.bytes {
		add(l.bytes-int64(len(closing)), l.bytes)
	}
	return list
}
