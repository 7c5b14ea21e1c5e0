// Package source defines what a source is: one way to follow a table.
//
// A [Source] copies a table of the database into a snapshot.Table and then keeps the snapshot.Table equal to the table. It uses
// what an [Env] holds, and reports to the [Progress] in the Env. Source, Env and Progress belong to one attempt: they are made
// for a single call of Follow.
//
// The packages logical, notify and poll each have a Source. Package capture runs one of these Sources at a time.
//
// # Files
//
//   - source.go, env.go: Source; what a source can use
//   - timeouts.go, checkloop.go: when a source gives up; the regular checks, and how often they run
//   - roundbarrier.go: barriers of the sources that read the table in rounds
//   - progress.go, commitlines.go: what a source reports; the lines of usage.log for commits
package source

import (
	"context"
	"errors"

	"capture/snapshot"
)

// Source is one way to follow a table. It is used for a single call of Follow.
type Source interface {
	// Follow copies the table into t, then keeps t equal to it. It returns when ctx ends or the source fails; a
	// *ResyncError requests a new attempt.
	Follow(ctx context.Context, t *snapshot.Table) error

	// Barrier returns once a View of Follow's Table t contains every transaction that was committed before the call. It
	// returns ErrNotFollowing if Follow ends first.
	Barrier(ctx context.Context) error
}

// ResyncError ends Follow when the table must be read again: the rows in memory may no longer match the table, or the stream
// cannot continue from them. A ResyncError is a decision of the source rather than a failure of the database.
type ResyncError struct {
	Reason string
	// Backoff is true if the cause may soon occur again. The pauses between attempts then grow, as after a failure.
	Backoff bool
	// Intact is true if the rows in memory certainly are a state of the table. The next attempt then transfers only what has
	// changed since that state. Otherwise the next attempt copies the whole table.
	Intact bool
}

func (e *ResyncError) Error() string { return "copy the table again: " + e.Reason }

// ErrNotFollowing is Barrier's error when Follow has ended, or is about to end.
var ErrNotFollowing = errors.New("the table is not being followed at the moment")
