package capture

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	// uploadDelay is the time from a change to the start of its upload. It leaves half a minute for the upload itself, so that
	// a change is off the machine within a minute.
	uploadDelay = 30 * time.Second
	// The work of the uploader may take 1/uploadShare of the time.
	uploadShare = 10
	// hourlyUploads is the time between uploads if capture has no right to delete states. More frequent uploads would accumulate.
	hourlyUploads = time.Hour
	// Pauses after failed uploads.
	firstUploadRetry, longestUploadRetry = 5 * time.Second, time.Minute
	// proveInterval is the time between two proofs. A proof reads a state back.
	proveInterval = 24 * time.Hour
	// An upload is late once it has been overdue for lateUpload. A proof is late once the last proof is older than lateProof.
	lateUpload, lateProof = 10 * time.Minute, 48 * time.Hour
)

// uploadSchedule decides when the uploader does what. It does no I/O, takes no locks, and gets the current time from its caller.
type uploadSchedule struct {
	delay  time.Duration // time from a change to its upload: uploadDelay, or a shorter time that a test sets
	hourly bool          // whether only hourly uploads are made

	pending  time.Time     // time of the oldest change that no upload includes; zero if there is none
	regular  bool          // whether a regular write has happened since the last upload
	uploaded time.Time     // time of the last successful upload; zero before the first upload
	proven   time.Time     // time of the last proof, which read a state back and found no damage; zero before the first proof
	started  time.Time     // start of the schedule
	lastEnd  time.Time     // end of the last upload or other work (see addWork), successful or not
	lastTook time.Duration // duration of the last work
	prove    bool          // whether the next state must be read back directly after its upload

	retries *backoff.ExponentialBackOff // pauses after failures
	retryAt time.Time                   // earliest time of the next attempt; zero unless the last attempt failed
}

func newUploadSchedule(now time.Time) *uploadSchedule {
	return &uploadSchedule{delay: uploadDelay, started: now, prove: true, retries: newBackOff(firstUploadRetry, longestUploadRetry, 0)}
}

// addChange records a change that no upload includes.
func (s *uploadSchedule) addChange(at time.Time) {
	if s.pending.IsZero() {
		s.pending = at
	}
}

// addWork records the result of work that ended now, and the time that it took.
func (s *uploadSchedule) addWork(now time.Time, took time.Duration, err error) {
	s.lastEnd, s.lastTook = now, took
	if err == nil {
		s.retries.Reset()
		s.retryAt = time.Time{}
		return
	}
	s.retryAt = now.Add(s.retries.NextBackOff())
}

// rested returns the earliest time at which the uploader may work again. It pauses after each piece of work, so that its
// work takes at most 1/uploadShare of the time. After a failure, it also waits until retryAt.
func (s *uploadSchedule) rested() time.Time {
	at := s.lastEnd.Add((uploadShare - 1) * s.lastTook)
	if s.retryAt.After(at) {
		return s.retryAt
	}
	return at
}

// uploadDue returns the time at which the pending changes are due, and reports false if no changes are pending.
func (s *uploadSchedule) uploadDue() (time.Time, bool) {
	if s.pending.IsZero() {
		return time.Time{}, false
	}
	at := s.pending.Add(s.delay)
	switch {
	case s.uploaded.IsZero():
		at = s.pending // the first upload of a run is due at once
	case s.hourly:
		at = s.uploaded.Add(hourlyUploads)
		if s.pending.After(at) {
			at = s.pending
		}
	case s.regular:
		at = s.pending
	}
	return at, true
}

// isUploadDue reports whether it is time to upload the current state.
func (s *uploadSchedule) isUploadDue(now time.Time) bool {
	at, ok := s.uploadDue()
	return ok && !now.Before(at) && !now.Before(s.rested())
}

// isProofDue reports whether it is time to read a state back: the first state of a run immediately, then one state a day.
func (s *uploadSchedule) isProofDue(now time.Time) bool {
	if s.uploaded.IsZero() || now.Before(s.rested()) && !s.prove || now.Before(s.retryAt) {
		return false
	}
	return s.prove || now.Sub(s.proven) >= proveInterval
}

// lateAt returns the time from which the pending changes are late, and reports false if no changes are pending.
func (s *uploadSchedule) lateAt() (time.Time, bool) {
	at, ok := s.uploadDue()
	if rested := s.lastEnd.Add((uploadShare - 1) * s.lastTook); rested.After(at) && s.retryAt.IsZero() {
		at = rested
	}
	return at.Add(lateUpload), ok
}

// unprovenAt returns the time at which the last proof becomes too old. Before the first proof, the schedule's start counts
// instead.
func (s *uploadSchedule) unprovenAt() time.Time {
	if s.proven.IsZero() {
		return s.started.Add(lateProof)
	}
	return s.proven.Add(lateProof)
}
