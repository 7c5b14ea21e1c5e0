package capture

import (
	"time"

	"github.com/cenkalti/backoff/v5"

	"capture/store"
	"capture/store/manifest"
)

const (
	// Pauses after failed writes. They are short, because an attempt to write puts no load on the database.
	firstWriteRetry   = 250 * time.Millisecond
	longestWriteRetry = 5 * time.Second
	// clockCheck is the longest time between two checks of the wall clock, which somebody may set to another time.
	clockCheck = 10 * time.Second
	// idleAfter is the time from a write to the first idle step (see [store.File.Idle]) if no changes arrive.
	idleAfter = 500 * time.Millisecond
)

// flushSchedule decides when the file is written next, and for which reason. It does no I/O, takes no locks, and gets the
// current time from its caller.
type flushSchedule struct {
	delay, interval time.Duration // FlushDelay and FlushInterval of the Config

	pending  time.Time     // time of the oldest change that the file does not hold; zero if there is none
	lastEnd  time.Time     // end of the last write
	lastTook time.Duration // duration of the last write

	moreIdle bool          // whether the file has idle steps left, see [store.File.Idle]
	idleFrom time.Time     // earliest time of the next idle step
	idleTook time.Duration // total duration of the idle steps since the last write

	retries *backoff.ExponentialBackOff // pauses after failed writes
	retryAt time.Time                   // earliest time of the next attempt; zero unless the last write failed
	pause   time.Duration               // pause before retryAt

	intervalStart time.Time // start of the current interval, on the wall clock
	intervalRan   time.Time // time at which the current interval was entered; it includes a reading of the monotonic clock
}

func newFlushSchedule(delay, interval time.Duration, now time.Time) *flushSchedule {
	s := &flushSchedule{delay: delay, interval: interval, retries: newBackOff(firstWriteRetry, longestWriteRetry, 0)}
	s.enterInterval(now)
	return s
}

// enterInterval sets the current interval to the one that contains now. The next regular write is due when a later interval
// begins.
func (s *flushSchedule) enterInterval(now time.Time) {
	s.intervalStart, s.intervalRan = now.Truncate(s.interval), now
}

// addChange records that the table changed at the given time, possibly during a write.
func (s *flushSchedule) addChange(at time.Time) {
	if s.pending.IsZero() {
		s.pending = at
	}
}

// addWrite records a write that ended now.
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

// changeDue returns the time at which the pending changes are due. They are due after the delay. If the last write took
// longer than the delay, they also wait for a pause that is as long as that write, so that slow writes take at most half of
// the time. After a failure, they also wait for the retry.
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

// addIdleWork records that a write has ended now and has left work for idle steps; see [store.File.Idle]. The first idle step
// follows after a pause. The pause is at least as long as all idle steps after the previous write together. Therefore, idle
// steps take at most half of the time, even if every write leaves work for them.
func (s *flushSchedule) addIdleWork(now time.Time) {
	s.moreIdle, s.idleFrom, s.idleTook = true, now.Add(max(idleAfter, s.idleTook)), 0
}

// addIdleStep records an idle step. hasMore is true if further idle steps are left.
func (s *flushSchedule) addIdleStep(took time.Duration, hasMore bool) {
	s.moreIdle = hasMore
	s.idleTook += took
}

// idleDue reports whether it is time for an idle step (see [store.File.Idle]).
func (s *flushSchedule) idleDue(now time.Time) bool {
	return s.moreIdle && s.pending.IsZero() && !now.Before(s.idleFrom)
}

// writeDue reports whether a write is due now, and for which reason. hasWritten is true if this run has written the file
// before.
func (s *flushSchedule) writeDue(now time.Time, hasWritten bool) (manifest.Reason, bool) {
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

// intervalDue reports whether a regular write is due because the wall clock has entered another interval. Somebody may set the
// wall clock, so intervalDue also measures, by the monotonic clock, how much time has passed since the current interval was
// entered. Once a whole interval has passed, a write is due in any case. Before a minimum time has passed, no write is due, so
// setting the wall clock causes at most one additional write. The minimum is half an interval, or the time from the entry into
// the interval to its end, whichever is shorter.
func (s *flushSchedule) intervalDue(now time.Time) bool {
	passed := now.Sub(s.intervalRan)
	if passed >= s.interval {
		return true
	}
	// intervalRest is the time from the entry into the current interval to its end, by the wall clock at the entry.
	intervalRest := s.intervalStart.Add(s.interval).Sub(s.intervalRan)
	return !now.Truncate(s.interval).Equal(s.intervalStart) && passed >= min(s.interval/2, intervalRest)
}

// waitTime returns the time until a write or an idle step (see [store.File.Idle]) may be due.
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
