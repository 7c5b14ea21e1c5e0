package retention

import "time"

// settleTime is how long a wall clock must run steadily before Clock accepts a jump forward. Until then, Clock adds the elapsed
// monotonic time to the last accepted time.
const settleTime = 24 * time.Hour

// jumpLimit is how much the wall clock may gain on the monotonic clock. If it gains more, Clock treats the difference as a
// jump.
const jumpLimit = time.Hour

// Clock returns the time that decides which states are dropped. After a jump forward, it follows the wall clock only after the
// wall clock has run steadily for settleTime. It follows a jump back at once, because an earlier time drops fewer states.
type Clock struct {
	base    time.Time     // time that was accepted last, or just before the last jump
	offset  time.Duration // how far the wall clock was ahead after its jump; 0 if jumped is false
	elapsed time.Duration // monotonic time that corresponds to base
	jumped  bool          // whether the wall clock has jumped forward and has not settled yet
}

// NewClock returns a Clock for a process that starts. wall is the time of the wall clock, and elapsed the time of a
// monotonic clock. lastAccepted is the accepted time that an earlier run has stored, or zero if there is none. If wall is much
// later than lastAccepted, NewClock treats the difference as a jump: capture may have been stopped for long, or the clock may
// be wrong.
func NewClock(wall, lastAccepted time.Time, elapsed time.Duration) *Clock {
	c := &Clock{base: wall, elapsed: elapsed}
	if !lastAccepted.IsZero() && wall.Sub(lastAccepted) > jumpLimit {
		c.base, c.jumped, c.offset = lastAccepted, true, wall.Sub(lastAccepted)
	}
	return c
}

// Now returns the accepted time. wall and elapsed are the current times of the two clocks.
func (c *Clock) Now(wall time.Time, elapsed time.Duration) time.Time {
	believed := c.base.Add(elapsed - c.elapsed)
	ahead := wall.Sub(believed)
	switch {
	case ahead <= jumpLimit: // the clock runs steadily, or was set back
		c.base, c.elapsed, c.jumped, c.offset = wall, elapsed, false, 0
		return wall
	case !c.jumped || (ahead-c.offset).Abs() > jumpLimit: // the clock has jumped ahead for the first time, or once more
		c.base, c.elapsed, c.jumped, c.offset = believed, elapsed, true, ahead
		return believed
	case elapsed-c.elapsed >= settleTime:
		c.base, c.elapsed, c.jumped, c.offset = wall, elapsed, false, 0
		return wall
	}
	return believed
}

// Behind returns the accepted time if it is earlier than the wall clock's time. Otherwise it returns zero. A run stores the
// result in the manifests that it writes. The next run then continues with the accepted time, even if the wall clock is
// wrong.
func (c *Clock) Behind(wall time.Time, elapsed time.Duration) time.Time {
	if now := c.Now(wall, elapsed); now.Before(wall) {
		return now
	}
	return time.Time{}
}
