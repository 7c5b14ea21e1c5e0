package capture

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// The pauses between attempts to follow the table.
const (
	firstRetry   = 200 * time.Millisecond // pause after the first failed attempt
	longestRetry = 10 * time.Second       // longest pause between attempts, before retrySpread is applied
	retrySpread  = 0.5                    // share by which pauses vary at random, so that clients do not all reconnect together
	stableAfter  = 5 * time.Second        // if a source has followed the table for longer than this, the pauses start at firstRetry again
)

// newBackOff returns a sequence of pauses that double from first to longest. Each pause is also multiplied by a random factor
// between 1-spread and 1+spread.
func newBackOff(first, longest time.Duration, spread float64) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier, b.RandomizationFactor = first, longest, 2, spread
	b.Reset()
	return b
}
