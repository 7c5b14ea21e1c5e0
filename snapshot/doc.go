// Package snapshot holds the rows of one Postgres table in memory, as the lines of JSON that make up feedback.json.
//
// One goroutine writes transactions to a [Table]. A [View] is the last committed state of a Table. It never changes, and making
// one copies only a short list. Any goroutine may read a View for as long as it likes. Package rowjson encodes the lines and
// their keys; this package treats both as bytes.
//
// # Structure
//
// The type tree holds the rows in a copy-on-write B-tree of two levels, groups and leaves:
//
//	tree.groups       View.groups             each View has its own copy of the list
//	    │                 │
//	    ├────────┬────────┤
//	    ▼        ▼        ▼
//	  group    group    group                 up to 512 leaves, and the prefixes of their first keys
//	    │
//	    ├────────┬────────┐
//	    ▼        ▼        ▼
//	  leaf     leaf     leaf                  id, epoch, number of rows, bytes of their lines
//	    │        │        │
//	    ▼        ▼        ▼
//	  page     page    extent                 about 64 kB of rows, in memory or in the spill file
//
// The rows of a page contain no pointers, so the garbage collector's work depends on the number of pages, not of rows. The cost
// of a change depends on the size of its page, not of the table.
//
// # Versions
//
// Each group and leaf records the epoch that the tree had when it was made. The tree changes a group or leaf in place if its
// epoch is the tree's current one, and clones it first otherwise. To freeze all rows, the tree copies the list of groups and
// increments its epoch. It does so for a View, for the savepoint of a large transaction, and for [Table.Partial].
//
// A cloned page shares its buffers with the page that it was cloned from, and appends new lines at their end. When a buffer is
// full, the newest version of the page moves its rows to a new buffer. Older versions that Views still show are then rebased
// onto the new buffer: they keep private copies of only those lines that the newest version lacks.
//
// # Transactions
//
// A small transaction is buffered in a txBuffer until its Commit. A larger transaction, and every Load, is applied to the tree
// in place. Before that, the Table makes the View of the committed state, which readers see until the Commit, and a savepoint,
// which Rollback restores.
//
// A Load is a reload if the Table already has rows of the same shape. A reload only marks an unchanged row as seen. At its
// Commit, a sweep deletes the rows that it has not seen. With [Table.LoadChanges], the caller knows which rows are unchanged,
// and passes only their keys; see [Horizon].
//
// # Memory
//
// With [Table.LimitMemory], a cache evicts pages by the CLOCK algorithm. It writes an evicted page to the spill file once. The
// leaf then has an extent instead of a page, until the writer loads the page again. A reader of a View reads an evicted page
// into memory of its own. A View can also show pages whose leaves have left the tree. The cache evicts these, too, once two
// garbage collections have shown that a View still holds them.
//
// With [Table.SpillOldRows], all rows of the tree stay in memory, except after a Rollback until the next Load. Only the old rows of a large transaction are moved to the
// spill file: its savepoint and the View of the committed state need them until the Commit.
//
// # Files
//
//   - table.go, view.go, viewjson.go: Table, View, and how a View becomes JSON
//   - tree.go, split.go, group.go, leaf.go, page.go: the tree and its nodes, how they split and merge; the size limits of a page and
//     of a row
//   - rebase.go, pendinglines.go: older versions of a page; new lines of a large transaction, put together by page
//   - txbuffer.go, prefault.go: small transactions
//   - reload.go, seenrows.go, loadfile.go: reloads, and the rows that they have seen; loading the rows of the file
//   - horizon.go: the horizon of the rows, and the server and table that it is valid for
//   - omitrow.go, omittedrows.go: rows that do not fit into memory, in a transaction and in a View
//   - cache.go, evict.go, retiredpages.go: the memory limit; which page is evicted; pages of old Views
//   - oldrows.go: which rows of a large transaction are moved to the spill file
//   - spiller.go, spilledpage.go: moving a page to the spill file; the format of a page there
package snapshot
