package capture

import (
	"context"
	"io"
	"time"
)

// paced passes a copy on at no more than so many bytes a second; the server then waits, and reads no faster.
type paced struct {
	ctx   context.Context
	to    io.Writer
	rate  int64
	start time.Time
	sent  int64 // since start
}

// unused is how long a rate that was not made use of stays to be caught up with.
const unused = time.Second

func (p *paced) Write(b []byte) (int, error) {
	n, err := p.to.Write(b)
	p.sent += int64(n)
	due := time.Duration(float64(p.sent) / float64(p.rate) * float64(time.Second))
	ahead := due - time.Since(p.start)
	if ahead < -unused {
		p.start, p.sent = time.Now().Add(-unused), 0
	}
	// Short waits are put together: a timer is not that exact.
	if err != nil || ahead < 20*time.Millisecond {
		return n, err
	}
	timer := time.NewTimer(ahead)
	defer timer.Stop()
	select {
	case <-timer.C:
		return n, nil
	case <-p.ctx.Done():
		return n, context.Cause(p.ctx)
	}
}
