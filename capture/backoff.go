package capture

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// newBackOff returns a sequence of pauses that double from first to longest. Each pause is random: between (1-spread) and
// (1+spread) times its length.
func newBackOff(first, longest time.Duration, spread float64) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval, b.MaxInterval, b.Multiplier, b.RandomizationFactor = first, longest, 2, spread
	b.Reset()
	return b
}
