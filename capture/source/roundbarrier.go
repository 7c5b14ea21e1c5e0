package source

import (
	"context"
	"fmt"
)

// Rounds connects Barrier with the loop of a source that reads the table in rounds. Each call of Barrier requests a round that
// begins after the call.
type Rounds struct {
	requests chan chan error
	ended    chan struct{}
}

// NewRounds returns a Rounds for which nobody has requested a round yet.
func NewRounds() *Rounds { return &Rounds{requests: make(chan chan error), ended: make(chan struct{})} }

// Requests returns the channel from which the loop receives requests for a round. Each request is itself a channel, to which
// the loop sends the round's error or nil. The channel of a request is buffered, so the loop does not block.
func (r *Rounds) Requests() <-chan chan error { return r.requests }

// End makes every call of Barrier return ErrNotFollowing. The source calls End when Follow ends.
func (r *Rounds) End() { close(r.ended) }

// Barrier returns nil once a round that began after the call has succeeded. If the round fails, the source ends, and Barrier
// returns ErrNotFollowing. The next copy then includes what the caller waits for.
func (r *Rounds) Barrier(ctx context.Context) error {
	answer := make(chan error, 1)
	select {
	case r.requests <- answer:
	case <-r.ended:
		return ErrNotFollowing
	case <-ctx.Done():
		return fmt.Errorf("wait for the table to be read: %w", ctx.Err())
	}
	select {
	case err := <-answer:
		if err == nil {
			return nil
		}
		return ErrNotFollowing
	case <-r.ended:
		return ErrNotFollowing
	case <-ctx.Done():
		return fmt.Errorf("wait for the table to be read: %w", ctx.Err())
	}
}
