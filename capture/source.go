package capture

import (
	"context"
	"errors"

	"capture/snapshot"
)

// Source is one way of following a table.
type Source interface {
	// Follow copies the table into t, then keeps t equal to it, until ctx ends or the source fails. An *anewError asks to
	// be called again at once.
	Follow(ctx context.Context, t *snapshot.Table) error
	// Barrier returns once all that was committed before the call is in a View.
	Barrier(ctx context.Context) error
}

// anewError ends a Follow because what it has is not the table any more: the table is copied anew.
type anewError struct {
	why   string
	again bool // the same may well happen again: the pauses grow, as after a failure
}

func (e *anewError) Error() string { return "copy the table anew: " + e.why }

// errNotFollowing is a Barrier's answer while its source is not in the stream.
var errNotFollowing = errors.New("the table is not being followed at the moment")
