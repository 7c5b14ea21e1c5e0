package capture

import (
	"context"
	"sync"
	"time"
)

// pace lets a copy pass at no more than so many bytes a second, over all of its connections together; the server then
// waits, and reads no faster.
type pace struct {
	rate    int64
	longest time.Duration // of one wait: the server must not take it for a client that is frozen

	mu    sync.Mutex
	start time.Time
	sent  int64 // since start
}

// unused is how long a rate that was not made use of stays to be caught up with.
const unused = time.Second

func newPace(rate int64, longest time.Duration) *pace {
	return &pace{rate: rate, longest: longest, start: time.Now()}
}

// spend waits until n more bytes are due. A nil pace never waits.
func (p *pace) spend(ctx context.Context, n int) error {
	if p == nil {
		return nil
	}
	ahead := min(p.ahead(n), p.longest)
	if ahead < 20*time.Millisecond { // short waits are put together: a timer is not that exact
		return nil
	}
	timer := time.NewTimer(ahead)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// ahead is by how much n more bytes come before their time.
func (p *pace) ahead(n int) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sent += int64(n)
	due := time.Duration(float64(p.sent) / float64(p.rate) * float64(time.Second))
	ahead := due - time.Since(p.start)
	if ahead < -unused {
		p.start, p.sent = time.Now().Add(-unused), 0
	}
	return ahead
}
