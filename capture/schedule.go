package capture

import (
	"time"

	"github.com/cenkalti/backoff/v5"

	"capture/store"
)

const (
	// Pauses between attempts to write a file that cannot be written. They are short: the trouble is on our own disk.
	firstWriteRetry   = 250 * time.Millisecond
	longestWriteRetry = 5 * time.Second
	// clockCheck is the longest time between two looks at the wall clock, which may be set.
	clockCheck = 10 * time.Second
	// idleAfter is the time without changes after a write before the file gets its idle steps.
	idleAfter = 500 * time.Millisecond
)

// flushSchedule decides when the file is written next, and why. It does no I/O and takes no locks, and it learns the time
// from its caller.
type flushSchedule struct {
	delay, interval time.Duration // FlushDelay and FlushInterval of the Config

	pending  time.Time     // time of the oldest change that the file does not hold; zero if there is none
	lastEnd  time.Time     // end of the last write
	lastTook time.Duration // duration of the last write

	moreIdle bool          // the file has idle steps to do, see [store.File.Idle]
	idleFrom time.Time     // earliest time of the next one
	idleTook time.Duration // total duration of those since the last write

	retries *backoff.ExponentialBackOff // pauses after writes that fail
	retryAt time.Time                   // earliest time of the next attempt; zero unless the last write failed
	pause   time.Duration               // pause before retryAt

	intervalStart time.Time // start of the current interval, on the wall clock
	intervalRan   time.Time // time at which the current interval was entered, with the monotonic clock
}

func newFlushSchedule(delay, interval time.Duration, now time.Time) *flushSchedule {
	s := &flushSchedule{delay: delay, interval: interval, retries: newBackOff(firstWriteRetry, longestWriteRetry, 0)}
	s.enterInterval(now)
	return s
}

// enterInterval notes that the interval which contains now needs no further regular write.
func (s *flushSchedule) enterInterval(now time.Time) {
	s.intervalStart, s.intervalRan = now.Truncate(s.interval), now
}

// addChange notes that the table changed at that time, which may have been during a write.
func (s *flushSchedule) addChange(at time.Time) {
	if s.pending.IsZero() {
		s.pending = at
	}
}

// addWrite notes a write that ended now.
func (s *flushSchedule) addWrite(now time.Time, took time.Duration, err error) {
	s.lastEnd, s.lastTook = now, took
	if err == nil {
		s.retries.Reset()
		s.retryAt = time.Time{}
		return
	}
	s.pause = s.retries.NextBackOff()
	s.retryAt = now.Add(s.pause)
}

// changeDue returns when the pending changes are to be written: after the delay, and not before the file has rested for as
// long as its last write took. Writing thus takes no more than half of the time.
func (s *flushSchedule) changeDue() time.Time {
	due := s.pending.Add(s.delay)
	if rested := s.lastEnd.Add(s.lastTook); s.lastTook > s.delay && rested.After(due) {
		due = rested
	}
	if s.retryAt.After(due) {
		due = s.retryAt
	}
	return due
}

// addIdleWork records that the write that ended now left idle steps. They begin after a pause as long as the idle steps after
// the previous write took. So they take no more than half of the time, even if each write undoes what they did.
func (s *flushSchedule) addIdleWork(now time.Time) {
	s.moreIdle, s.idleFrom, s.idleTook = true, now.Add(max(idleAfter, s.idleTook)), 0
}

// addIdleStep notes an idle step, and whether there are more.
func (s *flushSchedule) addIdleStep(took time.Duration, more bool) {
	s.moreIdle = more
	s.idleTook += took
}

// idleDue reports whether it is time for an idle step.
func (s *flushSchedule) idleDue(now time.Time) bool {
	return s.moreIdle && s.pending.IsZero() && !now.Before(s.idleFrom)
}

// due reports whether to write now, and why. hasWritten is whether this run has written the file before.
func (s *flushSchedule) due(now time.Time, hasWritten bool) (store.Reason, bool) {
	if s.intervalDue(now) && hasWritten && !now.Before(s.retryAt) {
		s.enterInterval(now)
		return store.ReasonInterval, true
	}
	if s.pending.IsZero() {
		return "", false
	}
	if !hasWritten {
		return store.ReasonStart, !now.Before(s.retryAt)
	}
	return store.ReasonChange, !now.Before(s.changeDue())
}

// intervalDue reports whether the wall clock has entered another interval. If the clock is set, there is at most one write
// more: by the monotonic clock, between half an interval and a whole one passes from one regular write to the next.
func (s *flushSchedule) intervalDue(now time.Time) bool {
	passed := now.Sub(s.intervalRan)
	if passed >= s.interval {
		return true
	}
	// How long the interval had left when it was entered, by the wall clock of that moment.
	left := s.intervalStart.Add(s.interval).Sub(s.intervalRan)
	return !now.Truncate(s.interval).Equal(s.intervalStart) && passed >= min(s.interval/2, left)
}

// waitTime returns how long nothing is due.
func (s *flushSchedule) waitTime(now time.Time) time.Duration {
	wait := min(now.Truncate(s.interval).Add(s.interval).Sub(now), clockCheck)
	switch {
	case !s.pending.IsZero():
		wait = min(wait, s.changeDue().Sub(now))
	case s.moreIdle:
		wait = min(wait, s.idleFrom.Sub(now))
	}
	return max(wait, 0)
}
