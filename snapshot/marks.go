package snapshot

import "slices"

// marks says which rows of a segment the open Load has brought again. They stand beside the content, so that a Load of
// rows that are all there as they were changes no segment, and needs none in memory at its end.
type marks struct {
	load uint64 // which Load; those of an earlier one, which was rolled back, count for nothing
	rows []bool
	n    int // how many are true
}

func (m *marks) set(i int) {
	if !m.rows[i] {
		m.rows[i] = true
		m.n++
	}
}

func (m *marks) insert(i int) {
	m.rows = slices.Insert(m.rows, i, true)
	m.n++
}

func (m *marks) delete(i int) {
	if m.rows[i] {
		m.n--
	}
	m.rows = slices.Delete(m.rows, i, i+1)
}

func (m *marks) split(i int) *marks {
	t := &marks{load: m.load, rows: slices.Clone(m.rows[i:])}
	for _, yes := range t.rows {
		if yes {
			t.n++
		}
	}
	m.rows, m.n = m.rows[:i], m.n-t.n
	return t
}

// marked is the marks of s that the open Load has made, nil for none.
func (t *Table) marked(s *segment) *marks {
	if !t.merging || s.marks == nil || s.marks.load != t.loads {
		return nil
	}
	return s.marks
}

// marking is the marks of s, made where there are none. It must be asked for before the row is put.
func (t *Table) marking(s *segment) *marks {
	if m := t.marked(s); m != nil {
		return m
	}
	s.marks = &marks{load: t.loads, rows: make([]bool, s.n)}
	return s.marks
}

// joinMarks gives s, to which the rows of next are about to be added, the marks of both.
func (t *Table) joinMarks(s, next *segment) {
	if t.marked(s) == nil && t.marked(next) == nil {
		return
	}
	m := t.marking(s)
	if more := t.marked(next); more != nil {
		m.rows, m.n = append(m.rows, more.rows...), m.n+more.n
	} else {
		m.rows = append(m.rows, make([]bool, next.n)...)
	}
}

// sweep takes out the rows that the Load, which ends now, has not brought.
func (t *Table) sweep() {
	t.rows, t.live = 0, 0
	for gi := range t.groups {
		g := t.sweepGroup(gi)
		if t.err != nil {
			return
		}
		for _, s := range g.segs {
			s.marks = nil
			t.rows += s.n
			t.live += int64(s.live)
		}
	}
	t.groups = slices.DeleteFunc(t.groups, func(g *group) bool { return len(g.segs) == 0 })
}

// sweepGroup sweeps one group, and returns what is left of it. Segments of which all rows came again stay as they are.
func (t *Table) sweepGroup(gi int) *group {
	g := t.groups[gi]
	if !slices.ContainsFunc(g.segs, func(s *segment) bool { m := t.marked(s); return m == nil || m.n < s.n }) {
		return g
	}
	kept := &group{epoch: t.epoch, segs: make([]*segment, 0, len(g.segs)), firsts: make([]uint64, 0, len(g.segs))}
	for i, s := range g.segs {
		first, m := g.firsts[i], t.marked(s)
		switch {
		case m == nil || m.n == 0:
			t.leave(s)
			continue
		case m.n < s.n:
			b := t.bring(s)
			if b == nil {
				return nil
			}
			s = t.own(s, b)
			s.sweep(m)
			first = prefix(s.firstKey())
		}
		kept.segs, kept.firsts = append(kept.segs, s), append(kept.firsts, first)
	}
	t.groups[gi] = kept
	t.relieve()
	return kept
}
