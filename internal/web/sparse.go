package web

import (
	"sync"
	"time"
)

const (
	sparseBurst = 5
	sparseEvery = 10 * time.Second
)

// sparse keeps a caller who can make us log from filling the log: a few lines at once, then one every ten seconds.
type sparse struct {
	mu      sync.Mutex
	left    float64 // lines that may be written now
	last    time.Time
	skipped int
}

// allow says whether to log now, and how many were left out since the last line.
func (s *sparse) allow() (skipped int, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if s.last.IsZero() {
		s.left = sparseBurst
	} else {
		s.left = min(sparseBurst, s.left+float64(now.Sub(s.last))/float64(sparseEvery))
	}
	s.last = now
	if s.left < 1 {
		s.skipped++
		return 0, false
	}
	s.left--
	skipped, s.skipped = s.skipped, 0
	return skipped, true
}
