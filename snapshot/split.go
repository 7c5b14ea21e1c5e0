package snapshot

// splitLarge splits the leaf at index li of the group at index gi, and then its parts, until each part is small enough or
// has only one row. One split is not enough if two large rows come one after the other.
func (t *tree) splitLarge(gi, li int) {
	g := t.groups[gi]
	for end := li + 1; li < end; {
		l := g.leaves[li]
		if l.live <= splitBytes(t.pageBytes) || l.rows == 1 {
			li++
			continue
		}
		t.countReplaced(l.live) // the split copies the lines, so only older versions of the page still need the old lines
		memory := t.cache.residentBytes(l)
		next := l.splitAt(l.page.Load().splitIndex())
		t.cache.adjustResident(t.cache.residentBytes(l) - memory)
		t.cache.addResident(next)
		g.insertLeaf(li+1, next)
		end++
	}
	t.splitGroup(gi)
}

// splitGroup halves the group at index gi if it has too many leaves.
func (t *tree) splitGroup(gi int) {
	g := t.groups[gi]
	if len(g.leaves) <= t.groupSize {
		return
	}
	m := len(g.leaves) / 2
	next := &group{
		epoch:    t.epoch,
		leaves:   append([]*leaf(nil), g.leaves[m:]...),
		prefixes: append([]uint64(nil), g.prefixes[m:]...),
	}
	clear(g.leaves[m:])
	g.leaves, g.prefixes = g.leaves[:m], g.prefixes[:m]
	t.groups = append(t.groups, nil)
	copy(t.groups[gi+2:], t.groups[gi+1:])
	t.groups[gi+1] = next
}

// mergeWithNext merges the leaf at index li with the next leaf of g if both together are small.
func (t *tree) mergeWithNext(g *group, li int) {
	if li+1 >= len(g.leaves) || g.leaves[li].live+g.leaves[li+1].live > t.pageBytes/2 {
		return
	}
	l, next := g.leaves[li], g.leaves[li+1]
	p, err := next.readPage()
	if err != nil {
		return // merging is optional
	}
	if t.reloading {
		t.appendSeen(l, next)
	}
	memory := t.cache.residentBytes(l)
	for i := range p.entries {
		l.putRow(l.rows, false, p.key(i), p.line(i))
	}
	t.cache.adjustResident(t.cache.residentBytes(l) - memory)
	t.retire(next, nil)
	g.removeLeaf(li + 1)
}
