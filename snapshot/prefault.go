package snapshot

// prefault loads the pages that the buffered transaction will change. If a page cannot be read, the transaction therefore
// fails before any of its changes is applied. If the pages need too much memory, prefault instead sets a savepoint and
// applies the transaction in place. If the transaction fails, it is rolled back to the savepoint.
func (t *Table) prefault() {
	c := t.tree.cache
	if c == nil || c.file == nil || t.inPlace() || len(t.tree.groups) == 0 || len(t.buffer.ops) == 0 || t.buffer.truncates() {
		return
	}
	most := c.resident + c.pageLimit(t.tree.live)/overdraft
	for i := range t.buffer.ops {
		key := t.buffer.key(i)
		gi := findGroup(t.tree.groups, key)
		li := t.tree.groups[gi].findLeaf(key)
		l := t.tree.groups[gi].leaves[li]
		if t.tree.loadPage(l) == nil {
			return
		}
		// If the transaction deletes all rows of the leaf, the leaf's range of keys passes to a neighbor. Later changes then
		// need the neighbor's page.
		if t.buffer.ops[i].kind == opDelete && l.rows <= len(t.buffer.ops) {
			for _, neighbor := range neighborLeaves(t.tree.groups, gi, li) {
				if t.tree.loadPage(neighbor) == nil {
					return
				}
			}
		}
		if c.resident > most {
			t.applyInPlace()
			return
		}
	}
}

// neighborLeaves returns the leaves before and after the leaf at index li of the group at index gi.
func neighborLeaves(groups []*group, gi, li int) (list []*leaf) {
	if li > 0 {
		list = append(list, groups[gi].leaves[li-1])
	} else if gi > 0 {
		before := groups[gi-1].leaves
		list = append(list, before[len(before)-1])
	}
	if li+1 < len(groups[gi].leaves) {
		list = append(list, groups[gi].leaves[li+1])
	} else if gi+1 < len(groups) {
		list = append(list, groups[gi+1].leaves[0])
	}
	return list
}
