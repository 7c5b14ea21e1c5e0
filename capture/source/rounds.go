package source

import (
	"context"
	"fmt"
)

// Rounds connects Barrier with the loop of a source that reads the table in rounds: each call of Barrier asks for a round
// that begins after the call.
type Rounds struct {
	requests chan chan error
	ended    chan struct{}
}

// NewRounds returns Rounds without a request.
func NewRounds() *Rounds { return &Rounds{requests: make(chan chan error), ended: make(chan struct{})} }

// Requests returns the channel of requests. The loop sends its error, or nil, to each request after the round; the channels
// are buffered.
func (r *Rounds) Requests() <-chan chan error { return r.requests }

// End reports that the loop has ended. Barrier then returns ErrNotFollowing.
func (r *Rounds) End() { close(r.ended) }

// Barrier returns once a round has succeeded that began after the call. An error of the round ends the source, so Barrier
// returns ErrNotFollowing instead: the next copy includes what the caller waits for.
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
