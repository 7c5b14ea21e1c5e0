package snapshot

import "bytes"

// How changes reach the groups: each owns the group and the segment that it changes first.

// apply does what is held, and forgets it.
func (t *Table) apply() {
	h := &t.held
	for i := range h.ops {
		o := &h.ops[i]
		key := h.data[o.koff : o.koff+o.k]
		switch o.kind {
		case opPut:
			t.put(key, h.data[o.off:o.off+o.n])
		case opDelete:
			t.delete(key)
		case opTruncate:
			t.clear()
		}
		if t.direct {
			t.relieve()
		}
	}
	h.reset()
}

// ownGroup is the group at gi, free to be changed.
func (t *Table) ownGroup(gi int) *group {
	g := t.groups[gi]
	if g.epoch != t.epoch {
		g = g.clone(t.epoch)
		t.groups[gi] = g
	}
	return g
}

// own is s, whose content is b, or a copy of it that is free to be changed.
func (t *Table) own(s *segment, b *body) *segment {
	if s.epoch == t.epoch {
		return s
	}
	c := s.clone(t.epoch, b)
	if t.marked(s) != nil {
		c.marks = s.marks
	}
	t.leave(s)
	t.came(c)
	return c
}

func (t *Table) put(key, line []byte) {
	if t.err != nil {
		return
	}
	if len(t.groups) == 0 {
		s := newSegment(t.epoch)
		t.fill(s, key, line)
		g := &group{epoch: t.epoch}
		g.insert(0, s)
		t.groups = append(t.groups, g)
		return
	}
	gi := findGroup(t.groups, key)
	si := t.groups[gi].find(key)
	s := t.groups[gi].segs[si]
	b := t.bring(s)
	if b == nil {
		return
	}
	i, found := b.find(key)
	if t.merging && found && bytes.Equal(b.line(i), line) {
		t.marking(s).set(i)
		return
	}
	g := t.ownGroup(gi)
	if !found && i == s.n && s.live+len(line) > t.segmentBytes-t.segmentBytes/fillSlack {
		t.append(gi, si, key, line)
		return
	}
	s = t.own(s, b)
	g.segs[si] = s
	if t.merging {
		if m := t.marking(s); found {
			m.set(i)
		} else {
			m.insert(i)
		}
	}
	weight, live := t.weight(s), s.live
	s.put(i, found, key, line)
	t.grew(t.weight(s) - weight)
	t.live += int64(s.live - live)
	if !found {
		t.rows++
	}
	if i == 0 {
		g.firsts[si] = prefix(key)
	}
	if s.live > t.segmentBytes+t.segmentBytes/4 && s.n > 1 {
		t.split(gi, si)
	}
}

// fill puts the first row into a new segment.
func (t *Table) fill(s *segment, key, line []byte) {
	s.put(0, false, key, line)
	if t.merging {
		s.marks = &marks{load: t.loads, rows: []bool{true}, n: 1}
	}
	t.came(s)
	s.content.Load().used = true
	t.rows++
	t.live += int64(s.live)
}

func (t *Table) split(gi, si int) {
	g := t.groups[gi]
	s := g.segs[si]
	weight := t.weight(s)
	next := s.split(s.middle())
	t.grew(t.weight(s) - weight)
	t.came(next)
	g.insert(si+1, next)
	t.splitGroup(gi)
}

// fillSlack: of a segment that rows in key order fill, one of so many bytes is left for them to grow, lest the first that
// does takes another page in memory.
const fillSlack = 32

// append puts a row that comes after all others of a full segment into a new one: rows in key order fill segments but
// for the slack.
func (t *Table) append(gi, si int, key, line []byte) {
	g := t.groups[gi]
	s := newSegment(t.epoch)
	last := gi == len(t.groups)-1 && si == len(g.segs)-1
	if last {
		b := s.content.Load()
		b.buf = make([]byte, 0, max(t.segmentBytes, len(line)+len(terminator)))
		before := g.segs[si].content.Load() // the new one will be much like it
		b.rows = make([]entry, 0, len(before.rows)+len(before.rows)/16+1)
		b.keys = make([]byte, 0, len(before.keys)+len(before.keys)/16+8)
	}
	t.fill(s, key, line)
	g.insert(si+1, s)
	if last && len(g.segs) > t.groupSize {
		n := len(g.segs) - 1
		g.remove(n)
		ng := &group{epoch: t.epoch}
		ng.insert(0, s)
		t.groups = append(t.groups, ng)
		return
	}
	t.splitGroup(gi)
}

func (t *Table) splitGroup(gi int) {
	g := t.groups[gi]
	if len(g.segs) <= t.groupSize {
		return
	}
	m := len(g.segs) / 2
	ng := &group{
		epoch:  t.epoch,
		segs:   append([]*segment(nil), g.segs[m:]...),
		firsts: append([]uint64(nil), g.firsts[m:]...),
	}
	clear(g.segs[m:])
	g.segs, g.firsts = g.segs[:m], g.firsts[:m]
	t.groups = append(t.groups, nil)
	copy(t.groups[gi+2:], t.groups[gi+1:])
	t.groups[gi+1] = ng
}

func (t *Table) delete(key []byte) {
	if t.err != nil || len(t.groups) == 0 {
		return
	}
	gi := findGroup(t.groups, key)
	si := t.groups[gi].find(key)
	s := t.groups[gi].segs[si]
	b := t.bring(s)
	if b == nil {
		return
	}
	i, found := b.find(key)
	if !found {
		return
	}
	g := t.ownGroup(gi)
	s = t.own(s, b)
	g.segs[si] = s
	weight, live := t.weight(s), s.live
	s.delete(i)
	t.grew(t.weight(s) - weight)
	t.rows--
	t.live += int64(s.live - live)
	switch {
	case s.n == 0:
		t.leave(s)
		g.remove(si)
	case i == 0:
		g.firsts[si] = prefix(s.firstKey())
		fallthrough
	default:
		t.merge(g, si)
	}
	if len(g.segs) == 0 {
		t.groups = append(t.groups[:gi], t.groups[gi+1:]...)
	}
}

// merge joins a segment that has become small with the one behind it, so that deletes leave no crumbs.
func (t *Table) merge(g *group, si int) {
	if si+1 >= len(g.segs) || g.segs[si].live+g.segs[si+1].live > t.segmentBytes/2 {
		return
	}
	s, next := g.segs[si], g.segs[si+1]
	b, err := next.read()
	if err != nil {
		return // it can wait
	}
	if t.merging {
		t.joinMarks(s, next)
	}
	weight := t.weight(s)
	for i := range b.rows {
		s.put(s.n, false, b.key(i), b.line(i))
	}
	t.grew(t.weight(s) - weight)
	t.leave(next)
	g.remove(si + 1)
}

// trim gives back what a copy in another order than the key's left unused.
func (t *Table) trim() {
	for _, g := range t.groups {
		for _, s := range g.segs {
			if s.epoch != t.epoch {
				continue
			}
			if b := s.content.Load(); b != nil && allocated(cap(b.buf))-allocated(b.live) > b.live/32 {
				weight := t.weight(s)
				b.rebuild(0, -1)
				t.grew(t.weight(s) - weight)
			}
		}
	}
}
