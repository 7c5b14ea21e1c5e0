package retention

import "time"

// settleTime is how long a wall clock must run steadily before a jump forward is believed. Until then states are dropped by
// the time that has passed since the last moment that is believed.
const settleTime = 24 * time.Hour

// jumpLimit is by how much the wall clock may gain on the monotonic clock without being a jump.
const jumpLimit = time.Hour

// Clock is a wall clock for dropping states. It never runs ahead of what it has reason to believe. A jump back is followed at
// once, since an earlier time drops less.
type Clock struct {
	base    time.Time // the time that was believed at the start or before the last jump
	offset  time.Duration
	elapsed time.Duration // monotonic time at base
	jumped  bool          // whether the wall clock is ahead and has not settled yet
}

// NewClock returns a Clock at a start of the process. wall is the wall clock, elapsed a monotonic one, and last the latest time
// that an earlier run has left on disk, or zero. A long time between the two may be a pause or a wrong clock.
func NewClock(wall, last time.Time, elapsed time.Duration) *Clock {
	c := &Clock{base: wall, elapsed: elapsed}
	if !last.IsZero() && wall.Sub(last) > jumpLimit {
		c.base, c.jumped, c.offset = last, true, wall.Sub(last)
	}
	return c
}

// Now returns the time that is believed.
func (c *Clock) Now(wall time.Time, elapsed time.Duration) time.Time {
	believed := c.base.Add(elapsed - c.elapsed)
	ahead := wall.Sub(believed)
	switch {
	case ahead <= jumpLimit: // steady, or set back
		c.base, c.elapsed, c.jumped, c.offset = wall, elapsed, false, 0
		return wall
	case !c.jumped || (ahead-c.offset).Abs() > jumpLimit: // a jump, or another one
		c.base, c.elapsed, c.jumped, c.offset = believed, elapsed, true, ahead
		return believed
	case elapsed-c.elapsed >= settleTime:
		c.base, c.elapsed, c.jumped, c.offset = wall, elapsed, false, 0
		return wall
	}
	return believed
}
