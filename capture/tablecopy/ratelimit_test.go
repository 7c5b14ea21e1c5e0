package tablecopy

import (
	"context"
	"testing"
	"time"

	"capture/internal/busy"
)

// TestRateLimiter checks the rate for small pieces, and the waits after a very large row. The first call waits only up to
// the limit of a single wait. The next call waits for the rest.
func TestRateLimiter(t *testing.T) {
	t.Parallel()
	elapsed := func(f func() error) time.Duration {
		start := time.Now()
		if err := f(); err != nil {
			t.Fatal(err)
		}
		return time.Since(start)
	}
	if took := elapsed(func() error {
		r := newRateLimiter(1_000_000, time.Minute)
		for range 300 {
			if err := r.wait(t.Context(), 1000); err != nil {
				return err
			}
		}
		return nil
	}); took < 250*time.Millisecond {
		t.Errorf("300 kB at 1 MB/s took %s", took)
	}
	r := newRateLimiter(10_000_000, 100*time.Millisecond)
	if took := elapsed(func() error { return r.wait(t.Context(), 600_000_000) }); took < 100*time.Millisecond || took > busy.Limit(time.Second) {
		t.Errorf("the wait for a row of a minute took %s, want the bound of 100ms", took)
	}
	if took := elapsed(func() error { return r.wait(t.Context(), 1) }); took < 100*time.Millisecond {
		t.Errorf("the rest of the wait was forgotten: the next one took %s", took)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := r.wait(ctx, 1); err == nil {
		t.Error("it waits after the end of its context")
	}
	if err := (*rateLimiter)(nil).wait(t.Context(), 1<<30); err != nil {
		t.Errorf("no limiter: %v", err)
	}
}
