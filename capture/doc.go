// Package capture follows a Postgres table and keeps a JSON file, feedback.json, equal to it.
//
// [New] returns a [Daemon], [Daemon.Run] runs it. This is the way of a commit in Postgres to the disk:
//
//  1. A source learns of it. A source is one way to follow a table (package source): by a replication slot (package
//     logical), by triggers and LISTEN (package notify), or by reading the table again and again (package poll). It
//     copies the table first, and then applies each transaction to the snapshot.Table, in commit order.
//  2. At the end of each transaction the table publishes a View: an immutable state that the database had. Readers, such
//     as the web page, take the newest one whenever they like.
//  3. The flusher wakes up. Its schedule waits for FlushDelay, so that a burst becomes one write, and spends no more than
//     half of the time on writing.
//  4. The flusher hands the newest View to the store.File, which replaces feedback.json and its manifest atomically and
//     durably. What came in the meantime is part of the next write.
//
// Around this path:
//
//   - The supervisor runs one source at a time. If the source fails, or if its copy can no longer be trusted (a resync),
//     the supervisor pauses and starts over with a new copy; the file keeps its last state. With the source auto, an
//     autoSource chooses the best one that works.
//   - A barrier waits until everything that was committed before it is in a View. [Daemon.Snapshot] is a barrier and a
//     write. The verifier compares the table with the View after a barrier.
//   - Monitors watch the memory and the volumes, and serve the previous run's rows while the database is away.
//   - Each part reports about itself: the source to its source.Progress, the flusher to a fileTracker, the others to
//     conditions. A [Status] is put together from these when somebody asks: /readyz, the metrics and the alerter.
//
// Every goroutine starts in [Daemon.Run] or in a source's Follow, which wait for it (invariant 5, docs/design.md). Nothing
// in memory is precious: after any doubt the table is copied again.
package capture
