package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"capture/capture/source"
)

// barrier returns once every transaction that was committed before the call is in a View. It waits for a running copy. If the
// last attempt failed and the next attempt has not begun, barrier returns an error.
func (s *supervisor) barrier(ctx context.Context) error {
	for {
		a, err := s.waitFollowing(ctx)
		if err != nil {
			return err
		}
		err = a.source.Barrier(ctx)
		if resync := (*source.ResyncError)(nil); !errors.As(err, &resync) && !errors.Is(err, source.ErrNotFollowing) {
			return err
		}
		// The copy of the next attempt includes everything that was committed before the call.
		select {
		case <-a.done:
		case <-ctx.Done():
			return fmt.Errorf("wait for the next copy of the table: %w", ctx.Err())
		}
	}
}

// waitFollowing returns the running attempt once its source follows the table.
func (s *supervisor) waitFollowing(ctx context.Context) (*attempt, error) {
	for {
		s.mu.Lock()
		a, changed := s.attempt, s.changed
		state, lastErr, nextAttempt := s.stateLocked(), s.lastErr, s.nextAttempt
		s.mu.Unlock()
		switch state {
		case stateFollowing:
			return a, nil
		case stateWaiting:
			return nil, fmt.Errorf("not following (next attempt at %s): %s", nextAttempt.UTC().Format(time.TimeOnly), lastErr)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, fmt.Errorf("still %s: %w", state, ctx.Err())
		}
	}
}

// waitState waits until the state is one of those given. It reports false if ctx ends first.
func (s *supervisor) waitState(ctx context.Context, states ...string) bool {
	for {
		state, changed := s.state()
		for _, want := range states {
			if state == want {
				return true
			}
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}
