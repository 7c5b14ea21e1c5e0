// Package snapshot holds one Postgres table in memory, as the lines of JSON that feedback.json consists of.
//
// A [Table] takes transactions from one goroutine. A [View] is its last committed state: it never changes, costs a copy of a short
// list, and may be read from any goroutine for as long as somebody holds it. Package rowjson makes the lines and their keys; here
// both are bytes.
//
// # Structure
//
// The rows lie in a copy-on-write B-tree of two levels, the type tree:
//
//	tree.groups       View.groups             a View has a copy of the list
//	    │                 │
//	    ├────────┬────────┤
//	    ▼        ▼        ▼
//	  group    group    group                 up to 512 leaves, and the prefixes of their first keys
//	    │
//	    ├────────┬────────┐
//	    ▼        ▼        ▼
//	  leaf     leaf     leaf                  id, epoch, number and bytes of its rows
//	    │        │        │
//	    ▼        ▼        ▼
//	  page     page    extent                 about 64 kB of rows, in memory or in the spill file
//
// A page has no pointers in it, so the garbage collector's work depends on the number of pages and not of rows. A change costs
// what its page costs, however large the table is.
//
// # Versions
//
// Groups and leaves bear the epoch of the tree in which they were made. The tree changes in place what has its current epoch, and
// clones everything else before a change. To freeze the whole tree, it copies the list of groups and increments its epoch. That
// happens for a View, for the savepoint of a large transaction, and for [Table.Partial].
//
// A clone shares the buffers of its page with the version before, and appends new lines behind the old ones. When the buffer is
// full, the newest version moves to a new one; older versions that Views still show are rebased onto it, and keep private copies
// of only those lines that the newest version does not have.
//
// # Transactions
//
// A small transaction waits in a txBuffer until its Commit. A larger one, and every Load, is applied in place behind a savepoint: the
// groups as they were. Readers see the View that was made with the savepoint until Commit.
//
// A Load over the rows of an earlier one is a reload: rows that come again as they were are only marked as seen, and at
// Commit a sweep deletes the rows that were not seen.
//
// # Memory
//
// With [Table.LimitMemory], a cache evicts pages by the CLOCK algorithm. An evicted page is written to the spill file once; its
// leaf then has an extent in place of a page, until the writer needs the page again. Readers of a View read such pages for
// themselves. Pages that have left the tree and that a View still shows are evicted as well, once two garbage
// collections have proved that somebody holds them.
package snapshot
