package snapshot

// A Table may begin with the rows of a file that an earlier run has written, instead of a copy of the Postgres table.
// EndPage keeps the rows of different regions of that file in different pages, so that the next version can be written by
// patching single regions of the file.

// EndPage ends the current Part of the open Load. The next row begins a new Part, if this row comes after all rows that have
// been put. The ended Part is not expected to grow, so EndPage frees its unused memory.
func (t *Table) EndPage() {
	if t.loadShape == nil || t.tree.err != nil || len(t.tree.groups) == 0 {
		return
	}
	g := t.tree.groups[len(t.tree.groups)-1]
	t.tree.trimPage(g.leaves[len(g.leaves)-1])
	t.tree.pageEnded = true
}

// CommitStored is like Commit for rows that are already in the file. The channel of [Table.Changed] receives nothing, so the
// rows are not written again.
func (t *Table) CommitStored(at Position) error { return t.commit(at) }
