package snapshot

// A Table may begin with the rows of a file that an earlier run has written, instead of a copy of the Postgres table. Each
// page of the Table then has the rows of one place in that file. Therefore, the next version can be written by patching the
// file.

// EndPage makes the next row of the open Load begin a new Part, if this row comes after all rows that have been put. The
// previous Part is not expected to grow, so EndPage frees its unused memory.
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
