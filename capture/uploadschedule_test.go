package capture

import (
	"errors"
	"testing"
	"time"
)

// TestUploadShare: even if the table changes all the time, uploads take at most a tenth of the time, and no upload is late.
// If an upload takes at most 3 seconds, each change is off the machine within a minute.
func TestUploadShare(t *testing.T) {
	t.Parallel()
	for _, took := range []time.Duration{100 * time.Millisecond, 3 * time.Second, 20 * time.Second, 5 * time.Minute} {
		now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
		s := newUploadSchedule(now)
		s.prove = false
		var busy, longest time.Duration
		start, uploads := now, 0
		for now.Sub(start) < 6*time.Hour {
			s.addChange(now)
			if s.isUploadDue(now) {
				waited := now.Sub(s.pending)
				if uploads > 0 {
					longest = max(longest, waited+took)
				}
				s.pending = time.Time{}
				now = now.Add(took)
				busy += took
				s.uploaded, s.regular = now, false
				s.addWork(now, took, nil)
				uploads++
			}
			if isLate(s, now) {
				t.Errorf("uploads that take %s are late after %s", took, now.Sub(start))
			}
			now = now.Add(100 * time.Millisecond)
		}
		if share := (busy - took).Seconds() / now.Sub(start).Seconds(); share > 0.101 { // the first upload does not count, because no pause precedes it
			t.Errorf("uploads that take %s take %.3f of the time", took, share)
		}
		if took <= 3*time.Second && longest > time.Minute {
			t.Errorf("uploads that take %s come up to %s after a change", took, longest)
		}
	}
}

// TestUploadsAfterAnOutage: the service is away for an hour. An upload is attempted about once a minute, the alert begins after
// ten minutes, and the first attempt after the outage comes within a minute.
func TestUploadsAfterAnOutage(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	s := newUploadSchedule(now)
	s.prove = false
	s.uploaded = now
	s.addWork(now, time.Second, nil)
	start, back := now, now.Add(time.Hour)
	s.addChange(now)
	attempts, late := 0, time.Duration(0)
	for ; now.Before(back); now = now.Add(time.Second) {
		if isLate(s, now) && late == 0 {
			late = now.Sub(start)
		}
		if s.isUploadDue(now) {
			attempts++
			s.addWork(now, 50*time.Millisecond, errors.New("connection refused"))
		}
	}
	if attempts < 55 || attempts > 70 {
		t.Errorf("%d attempts in an hour", attempts)
	}
	if late < 10*time.Minute || late > 11*time.Minute {
		t.Errorf("the alert began after %s", late)
	}
	for !s.isUploadDue(now) {
		now = now.Add(time.Second)
	}
	if now.Sub(back) > time.Minute {
		t.Errorf("the first attempt came %s after the service", now.Sub(back))
	}
	s.pending, s.uploaded = time.Time{}, now
	s.addWork(now, time.Second, nil)
	if isLate(s, now) {
		t.Error("the alert does not end")
	}
}

func isLate(s *uploadSchedule, now time.Time) bool {
	at, ok := s.lateAt()
	return ok && !now.Before(at)
}

func TestHourlyUploads(t *testing.T) {
	t.Parallel()
	start := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	s := newUploadSchedule(start)
	s.hourly, s.prove = true, false
	uploads := 0
	for now := start; now.Sub(start) < 24*time.Hour; now = now.Add(time.Second) {
		s.addChange(now)
		s.regular = now.Minute() == 0
		if s.isUploadDue(now) {
			uploads++
			s.pending, s.uploaded = time.Time{}, now
			s.addWork(now, time.Second, nil)
		}
		if isLate(s, now) {
			t.Fatalf("late at %s", now)
		}
	}
	if uploads != 24 {
		t.Errorf("%d uploads in a day", uploads)
	}
}

func TestProofs(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)
	s := newUploadSchedule(now)
	if s.isProofDue(now) {
		t.Error("a proof is due before there is a copy")
	}
	s.uploaded = now
	s.addWork(now, time.Minute, nil)
	if !s.isProofDue(now) {
		t.Error("the first copy of a run is not proven at once")
	}
	s.prove, s.proven = false, now
	for _, step := range []struct {
		after    time.Duration
		due, old bool
	}{{time.Hour, false, false}, {24 * time.Hour, true, false}, {47 * time.Hour, true, false}, {48 * time.Hour, true, true}} {
		if at := now.Add(step.after); s.isProofDue(at) != step.due || at.Before(s.unprovenAt()) == step.old {
			t.Errorf("after %s: due %t, unproven %t", step.after, s.isProofDue(at), !at.Before(s.unprovenAt()))
		}
	}
}
