package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"capture/store"
)

// The pauses between attempts to write a file that can't be written: short, since what is missing is on our own disk.
const (
	firstWritePause   = 250 * time.Millisecond
	longestWritePause = 5 * time.Second
)

// idleAfter is how long after a write no change must have come before the file gets its idle steps.
const idleAfter = 500 * time.Millisecond

// flusher writes the table's newest View to the file. One goroutine writes; any may force.
type flusher struct {
	d        *Daemon
	requests chan *forced
	regular  chan struct{} // has a value after a regular write
}

// forced is one request for a flush at once.
type forced struct {
	manifest store.Manifest
	err      error
	done     chan struct{}
}

// schedule is when the next flush is due, and why.
type schedule struct {
	delay, interval time.Duration

	pending   time.Time     // when the first change came that the file does not hold; zero where there is none
	lastEnd   time.Time     // when the last write ended
	lastTook  time.Duration // what it took
	moreIdle  bool          // whether the file has idle steps to do, see [store.File.Idle]
	idleFrom  time.Time     // when the next one may begin
	idleTook  time.Duration // what they took since the last write
	retry     time.Time     // not before, after a failed write
	pause     time.Duration // the next pause between attempts
	period    time.Time     // the last regular flush's place on the wall clock
	periodRan time.Time     // and when that was, by the monotonic clock
}

func newFlusher(d *Daemon) *flusher {
	return &flusher{d: d, requests: make(chan *forced), regular: make(chan struct{}, 1)}
}

// force writes the newest View now, and waits for it.
func (f *flusher) force(ctx context.Context) (store.Manifest, error) {
	r := &forced{done: make(chan struct{})}
	select {
	case f.requests <- r:
	case <-ctx.Done():
		return store.Manifest{}, fmt.Errorf("flush: %w", ctx.Err())
	}
	select {
	case <-r.done:
		return r.manifest, r.err
	case <-ctx.Done():
		return store.Manifest{}, fmt.Errorf("flush: still writing: %w", ctx.Err())
	}
}

// run flushes until ctx ends and the source has ended after it; then once more, if there is anything new.
func (f *flusher) run(ctx context.Context, followed <-chan struct{}) error {
	s := &schedule{delay: f.d.cfg.FlushDelay, interval: f.d.cfg.FlushInterval}
	s.begin(time.Now())
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		timer.Reset(s.wait(time.Now()))
		var requests []*forced
		changed := f.d.table.Changed()
		if !s.pending.IsZero() {
			changed = nil // the first is enough: being woken for each of many takes more than applying them
		}
		select {
		case <-ctx.Done():
			<-followed
			return f.last(s)
		case at := <-changed:
			s.changed(at)
			f.d.state.pending(s.pending)
		case r := <-f.requests:
			requests = append(requests, r)
		case <-timer.C:
		}
		now := time.Now()
		reason, due := s.due(now, f.d.state.written())
		if len(requests) > 0 {
			reason, due = store.ReasonForced, true
		}
		switch {
		case !due && s.idleDue(now):
			f.idle(ctx, s)
		case due:
			if _, err := f.write(s, reason, requests); err == nil && reason == store.ReasonInterval {
				wake(f.regular)
			}
		}
	}
}

// last is the flush at the end.
func (f *flusher) last(s *schedule) error {
	select {
	case at := <-f.d.table.Changed():
		s.changed(at)
	default:
	}
	incomplete := f.d.state.manifestIncomplete() && f.d.table.View() != nil
	if s.pending.IsZero() && !incomplete && f.d.state.fileError() == "" {
		return nil
	}
	if _, err := f.write(s, store.ReasonStop, nil); err != nil {
		return fmt.Errorf("the last flush failed, so that feedback.json does not hold the newest changes: %w", err)
	}
	return nil
}

// newest writes the newest View, and returns its version; 0 where there is none. No other function has the View meanwhile:
// the file lets go of its rows while it writes them, so that those which have changed since can be freed.
func (f *flusher) newest(start time.Time, reason store.Reason) (r store.Result, version uint64, err error) {
	view := f.d.table.View()
	if view == nil {
		return r, 0, errors.New("flush feedback.json: there is no copy of the table yet")
	}
	f.d.state.writing(start)
	version = view.Version()
	r, err = f.d.file.Write(view, reason)
	return r, version, err
}

// write writes the newest View for reason, and answers requests.
func (f *flusher) write(s *schedule, reason store.Reason, requests []*forced) (store.Manifest, error) {
	start := time.Now()
	pending := s.pending
	s.pending = time.Time{}
	select {
	case <-f.d.table.Changed(): // the View has it; what comes after says so anew
	default:
	}
	result, version, err := f.newest(start, reason)
	m := result.Manifest
	took := time.Since(start)
	s.wrote(time.Now(), took, err)
	switch {
	case version == 0:
	case err != nil:
		s.pending = pending
		f.failed(s, start, reason, err)
	default:
		s.idleSoon(s.lastEnd)
		f.d.state.wrote(m, version, took)
		f.d.metrics.flushed(reason, took, result.BytesWritten)
		f.d.log.Info("flushed", "reason", string(reason), "rows", m.Rows, "bytes", m.Bytes, "bytes_written", result.BytesWritten, "lsn", m.LSN, "ms", millis(took))
	}
	if result.Warning != "" {
		f.d.log.Warn(result.Warning)
	}
	for _, r := range requests {
		r.manifest, r.err = m, err
		close(r.done)
	}
	return m, err
}

// failed notes a write that began at start and failed.
func (f *flusher) failed(s *schedule, start time.Time, reason store.Reason, err error) {
	s.moreIdle = false
	if s.pending.IsZero() {
		s.pending = start // the hour's or a forced flush is owed, too
	}
	if f.d.state.failedWrite(err, s.pending) {
		f.d.log.Error("flush failed; the file stays as it was", "reason", string(reason), "error", err, "next_attempt_in", s.pause.String())
	}
	f.d.metrics.flushErrors.Inc()
}

// idle takes one of the steps that the last write left for a time without changes.
func (f *flusher) idle(ctx context.Context, s *schedule) {
	start := time.Now()
	result, more, err := f.d.file.Idle(ctx, f.d.table.View())
	took := time.Since(start)
	s.moreIdle = more
	s.idleTook += took
	if result.Manifest.SHA256 != "" {
		f.d.state.completed(result.Manifest)
	}
	if result.Warning != "" {
		f.d.log.Warn(result.Warning)
	}
	if err != nil {
		s.wrote(time.Now(), took, err)
		f.failed(s, start, store.ReasonChange, err)
	}
}

// keep puts the state that was just written aside after each regular write, until ctx ends: in a goroutine of its own,
// since compressing takes its time. A failure is no reason to stop: the next hour tries again.
func (f *flusher) keep(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.regular:
		}
		start := time.Now()
		path, err := f.d.file.KeepGeneration(ctx, f.d.cfg.Generations)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			f.d.log.Error("no generation was kept", "error", err)
			f.d.state.note("generations", err.Error())
		default:
			f.d.state.note("generations", "")
			f.d.log.Info("generation kept", "file", path, "ms", millis(time.Since(start)))
		}
	}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

func (s *schedule) begin(now time.Time) {
	s.period, s.periodRan = now.Truncate(s.interval), now
}

// changed notes that the table changed at that time, which may have been during a write.
func (s *schedule) changed(at time.Time) {
	if s.pending.IsZero() {
		s.pending = at
	}
}

// wrote notes how a write ended.
func (s *schedule) wrote(now time.Time, took time.Duration, err error) {
	s.lastEnd, s.lastTook = now, took
	if err == nil {
		s.retry, s.pause = time.Time{}, 0
		return
	}
	s.pause = min(max(2*s.pause, firstWritePause), longestWritePause)
	s.retry = now.Add(s.pause)
}

// change is when pending changes are written: after the delay, and not before the file has rested for as long as its
// last write took, so that writing takes no more than half of the time.
func (s *schedule) change() time.Time {
	at := s.pending.Add(s.delay)
	if rested := s.lastEnd.Add(s.lastTook); s.lastTook > s.delay && rested.After(at) {
		at = rested
	}
	if s.retry.After(at) {
		at = s.retry
	}
	return at
}

// idleSoon schedules the idle steps after a write that ended at now. They begin after a pause of as long as those after the
// write before took. So they take no more than half of the time, even if each write undoes what they did.
func (s *schedule) idleSoon(now time.Time) {
	s.moreIdle, s.idleFrom, s.idleTook = true, now.Add(max(idleAfter, s.idleTook)), 0
}

// idleDue reports whether it is time for an idle step.
func (s *schedule) idleDue(now time.Time) bool {
	return s.moreIdle && s.pending.IsZero() && !now.Before(s.idleFrom)
}

// due says whether to write now, and why; ever says whether this process has written before.
func (s *schedule) due(now time.Time, ever bool) (store.Reason, bool) {
	if s.regular(now) && ever && !now.Before(s.retry) {
		s.begin(now)
		return store.ReasonInterval, true
	}
	if s.pending.IsZero() {
		return "", false
	}
	if !ever {
		return store.ReasonStart, !now.Before(s.retry)
	}
	return store.ReasonChange, !now.Before(s.change())
}

// regular says whether the wall clock has entered another period. A clock that is set back or forth makes at most one
// flush more: between two there is half a period by the monotonic clock, and never more than one whole.
func (s *schedule) regular(now time.Time) bool {
	ran := now.Sub(s.periodRan)
	return ran >= s.interval || !now.Truncate(s.interval).Equal(s.period) && ran >= min(s.interval/2, s.untilPeriod())
}

// untilPeriod is how long after the last regular flush (or the start) the next period began, by the clock of then.
func (s *schedule) untilPeriod() time.Duration {
	return s.period.Add(s.interval).Sub(s.periodRan)
}

// wait is how long nothing is due. The wall clock may be set meanwhile, so that it is looked at once in a while.
func (s *schedule) wait(now time.Time) time.Duration {
	wait := min(now.Truncate(s.interval).Add(s.interval).Sub(now), 10*time.Second)
	switch {
	case !s.pending.IsZero():
		wait = min(wait, s.change().Sub(now))
	case s.moreIdle:
		wait = min(wait, s.idleFrom.Sub(now))
	}
	return max(wait, 0)
}
