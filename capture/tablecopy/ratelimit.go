package tablecopy

import (
	"context"
	"time"

	"golang.org/x/time/rate"
)

// rateLimiter limits the bytes per second that all connections of a copy together read. This also limits how fast the server
// reads the table, because the server waits until it can send.
type rateLimiter struct {
	limiter *rate.Limiter
	longest time.Duration // limit of a single wait; if a wait took longer, the server might consider this process frozen
}

// shortestWait is the shortest wait that is worth a timer. Shorter waits are skipped, and add up until their sum exceeds
// shortestWait.
const shortestWait = 20 * time.Millisecond

// newRateLimiter returns a limiter that starts without a burst. Later, it allows bursts of at most one second's unused bytes.
func newRateLimiter(bytesPerSecond int64, longest time.Duration) *rateLimiter {
	l := rate.NewLimiter(rate.Limit(bytesPerSecond), int(bytesPerSecond))
	l.AllowN(time.Now(), l.Burst())
	return &rateLimiter{l, longest}
}

// wait waits until n bytes may be read, but not longer than r.longest. The next calls then wait for the rest of the time. A
// nil rateLimiter never waits.
func (r *rateLimiter) wait(ctx context.Context, n int) error {
	if r == nil {
		return nil
	}
	var delay time.Duration
	now := time.Now()
	for n > 0 { // a single reservation cannot exceed the burst
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
