// Package snapshot holds the rows of one Postgres table in memory, as the lines of JSON that make up feedback.json.
//
// One goroutine writes transactions to a [Table]. A [View] is a committed state of a Table. It never changes, and making a View
// copies only a short list. Any goroutine may read a View for as long as it likes. Package rowjson encodes the lines and their
// keys; this package treats both as bytes.
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
// Each group and each leaf records the epoch in which the tree made it. If this is the tree's current epoch, the tree changes
// the group or leaf in place. Otherwise, the tree first clones the group or leaf. To freeze all rows, the tree copies the list
// of groups and increments its epoch. The tree freezes all rows for a View, for the savepoint of a large transaction, and for
// [Table.Partial].
//
// The clone of a page shares the buffers of the original page, and appends new lines at their end. When a buffer is full, the
// newest version of the page moves its rows to a new buffer. Older versions that Views still show are then rebased onto the new
// buffer: they use the lines in the new buffer, and keep private copies of only those lines that the newest version lacks.
//
// # Transactions
//
// A small transaction is buffered in a txBuffer until its Commit. A larger transaction, and every Load, is applied to the tree
// in place. Before that, the Table makes a View of the committed state for readers, and a savepoint for Rollback.
//
// A Load is a reload if the Table already has rows of the same shape. A reload only marks an unchanged row as seen. At its
// Commit, a sweep deletes the rows that the reload has not seen. With [Table.LoadChanges], the caller knows which rows are
// unchanged, and passes only their keys; see [Horizon].
//
// # Memory
//
// With [Table.LimitMemory], a cache evicts pages by the CLOCK algorithm. It writes a page to the spill file only at the first
// eviction of this page. The leaf then has an extent instead of a page, until the writer loads the page again. A reader of a
// View reads an evicted page into memory of its own. A View can also show pages whose leaves have left the tree. The cache
// evicts these pages, too, once two garbage collections have shown that a View still holds them.
//
// With [Table.SpillOldRows], only the old rows of a large transaction are moved to the spill file. The savepoint of the
// transaction and the View of the committed state need these rows until the Commit. The rows of the tree stay in memory, but
// after a Rollback some of them can be in the spill file until the next Load.
//
// # Files
//
//   - table.go, view.go, viewjson.go: Table, View, and how a View becomes JSON
//   - tree.go, split.go, group.go, leaf.go, page.go: the tree and its nodes, and how the nodes split and merge; the size limits
//     of a page and of a row
//   - rebase.go, pendinglines.go: older versions of a page; the new lines of a large transaction, which are collected and put
//     into a page together
//   - txbuffer.go, prefault.go: small transactions
//   - reload.go, seenrows.go, loadfile.go: reloads, and the rows that they have seen; loading the rows of the file
//   - horizon.go: the horizon of the rows, and the server and table that it is valid for
//   - omitrow.go, omittedrows.go: rows that do not fit into memory, in a transaction and in a View
//   - cache.go, evict.go, retiredpages.go: the memory limit; which page is evicted; pages of old Views
//   - oldrows.go: which rows of a large transaction are moved to the spill file
//   - spiller.go, spilledpage.go: moving a page to the spill file; the format of a page there
package snapshot
