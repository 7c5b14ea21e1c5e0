// Package capture follows a Postgres table and keeps a JSON file, feedback.json, equal to it.
//
// [New] returns a [Daemon], and [Daemon.Run] runs it. A commit in Postgres reaches the disk in these steps:
//
//  1. A source detects the commit. A source is one way to follow a table (package source): by a replication slot (package
//     logical), by triggers and LISTEN (package notify), or by reading the table at intervals (package poll). At its
//     start, it copies the table or resyncs the rows of an earlier run. After that, it applies changes to the
//     snapshot.Table in commit order.
//  2. The snapshot.Table publishes a View, which is an immutable state that the database committed. Readers, such as the
//     web page, can use the newest View at any time.
//  3. The flusher wakes up. It waits for FlushDelay, so that a burst becomes one write. It spends at most half of the time
//     on writing.
//  4. The flusher passes the newest View to the store.File, which replaces feedback.json and its manifest atomically and
//     durably. Changes that arrive meanwhile are part of the next write.
//
// Around this path:
//
//   - The supervisor runs one source at a time. If the source fails, or if the table must be read again (a resync), the
//     supervisor pauses and then runs a source again. If the rows in memory have a horizon (snapshot.Horizon), this source
//     transfers only what has changed since then. Otherwise, it copies the whole table. Meanwhile, the file keeps its last
//     state. With the source auto, an autoSource chooses the best source that works.
//   - A barrier waits until everything that was committed before it began is in a View. [Daemon.Snapshot] is a barrier
//     and a write. The verifier compares the table with the View after a barrier.
//   - Monitors watch the memory and the volumes. If the database is unreachable at the start, previousRows serves the rows
//     of the previous run.
//   - Each part reports its own state: the source to its source.Progress, the flusher to a fileTracker, and the others to
//     conditions. A [Status] is built from these reports on demand, for /readyz, the metrics and the alerter.
//
// Every goroutine starts in [Daemon.Run] or in a source's Follow, which wait for it (invariant 5, docs/design.md). If the
// state in memory may be wrong, the whole table is copied again.
//
// # Files
//
// The daemon, and which source runs:
//
//   - daemon.go, export.go: the daemon; a single read of the table without a daemon
//   - config.go, memorylimit.go: settings; limits of the memory for rows and of the size of a row
//   - supervisor.go, backoff.go: one source after the other; the pauses between them
//   - barrier.go: barriers, and other waits for a state of the supervisor
//   - autosource.go: the source auto
//   - databasereload.go: connection settings that may change
//
// Writing the file:
//
//   - flush.go: the flusher; putback.go: its work if the earlier run's file is removed before the first read of the table
//   - flushschedule.go: when the next write is due; the pauses after a failed write
//   - restart.go, previousrows.go: rows that an earlier run left in the file; restart.go loads them for the source, and
//     previousrows.go serves them while the database is unreachable
//   - fetchcopy.go: the download of a copy off the machine, which becomes the first file in an empty folder
//   - kept.go: kept states
//
// Copies off the machine:
//
//   - uploader.go, uploadschedule.go: uploads, and when the next upload is due
//   - uploadlosses.go: uploads of the states before losses, and losses that only the copies show
//
// Monitors:
//
//   - memorymonitor.go, omittedrows.go: memory, and rows that do not fit into it
//   - volumes.go, verify.go: volumes, and comparisons with the table
//   - alert.go, heartbeat.go: alerts, and signs of life
//
// Reports:
//
//   - status.go, filestatus.go, copiesstatus.go: the status, which is the answer of /readyz
//   - conditions.go: a Check in the status, and the conditions that the parts report
//   - statusreport.go, readychecks.go: how the status is built; its checks of the source and the logs
//   - timeformat.go: how the status and the log lines show times
//   - metrics.go, statusmetrics.go: metrics that the parts count, and metrics that come from the status
package capture
