package tablecopy

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// rateLimiter limits the rate at which all connections of a copy together read. The server then waits to send, and reads
// the table no faster.
type rateLimiter struct {
	limiter *rate.Limiter
	longest time.Duration // bound of a single wait: a server must not take the client for a frozen one
}

// shortestWait is the shortest wait that is worth a timer. Shorter ones add up to a longer one.
const shortestWait = 20 * time.Millisecond

// newRateLimiter returns a limiter that starts without a burst. A rate that was not used may be caught up with for a second.
func newRateLimiter(bytesPerSecond int64, longest time.Duration) *rateLimiter {
	l := rate.NewLimiter(rate.Limit(bytesPerSecond), int(bytesPerSecond))
	l.AllowN(time.Now(), l.Burst())
	return &rateLimiter{l, longest}
}

// wait waits until n bytes may be read, or for the longest wait: the rest is then waited for later. A nil rateLimiter never
// waits.
func (r *rateLimiter) wait(ctx context.Context, n int) error {
	if r == nil {
		return nil
	}
	var delay time.Duration
	now := time.Now()
	for n > 0 { // a row may be larger than what one reservation can hold
		part := min(n, r.limiter.Burst())
		delay = r.limiter.ReserveN(now, part).DelayFrom(now)
		n -= part
	}
	if delay < shortestWait {
		return nil
	}
	timer := time.NewTimer(min(delay, r.longest))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
