package web

import (
	"sync"
	"time"
)

const (
	logBurst    = 5
	logInterval = 10 * time.Second
)

// logLimiter limits the number of log lines that clients can cause: logBurst lines at once, and afterwards one line per
// logInterval.
type logLimiter struct {
	mu      sync.Mutex
	tokens  float64 // number of lines that may be logged now
	last    time.Time
	skipped int // number of lines suppressed since the last logged line
}

// allow reports whether a line may be logged now. If so, it also returns the number of lines suppressed since the last logged
// line.
func (l *logLimiter) allow() (skipped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if l.last.IsZero() {
		l.tokens = logBurst
	} else {
		l.tokens = min(logBurst, l.tokens+float64(now.Sub(l.last))/float64(logInterval))
	}
	l.last = now
	if l.tokens < 1 {
		l.skipped++
		return 0, false
	}
	l.tokens--
	skipped, l.skipped = l.skipped, 0
	return skipped, true
}
