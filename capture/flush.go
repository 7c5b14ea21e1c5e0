package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/foldlog"
	"capture/snapshot"
	"capture/store"
	"capture/store/manifest"
)

// flusher writes the table's newest View to the file: after changes, regularly, on request and at the end. All writes happen on
// its own goroutine, so a slow volume never blocks the source: invariant 6 (docs/design.md).
type flusher struct {
	table    *snapshot.Table
	file     *store.File
	tracker  *fileTracker
	metrics  *metrics
	keeper   *keeper
	uploader *uploader // nil if there are no copies off the machine
	volumes  *volumeMonitor
	log      hclog.Logger
	forced   *foldlog.Logger // log of forced flushes; it folds several lines into one, because requests can be frequent
	schedule *flushSchedule
	standing *manifest.Manifest // manifest of the file; nil if the file does not exist or is damaged
	previous *previousRows

	noHorizon bool // whether the manifest of the last write has no horizon
	misplaced bool // whether the file of an earlier run may be missing from its place, so that putBack must run

	requests chan *flushRequest
}

// flushRequest is a request to write at once.
type flushRequest struct {
	manifest manifest.Manifest
	err      error
	done     chan struct{} // closed when manifest or err is set
}

func newFlusher(cfg *Config, table *snapshot.Table, file *store.File, tracker *fileTracker, previous *previousRows, k *keeper, u *uploader, v *volumeMonitor, m *metrics) *flusher {
	f := &flusher{
		table: table, file: file, tracker: tracker, previous: previous, keeper: k, uploader: u, volumes: v, metrics: m,
		log: cfg.Logger, forced: foldlog.New(cfg.Logger, "flushed"),
		schedule: newFlushSchedule(cfg.FlushDelay, cfg.FlushInterval, time.Now()),
		requests: make(chan *flushRequest),
	}
	if m, ok := file.Existing(); ok {
		f.standing = &m
	}
	return f
}

// requestFlush requests a write of the newest View, and waits for it.
func (f *flusher) requestFlush(ctx context.Context) (manifest.Manifest, error) {
	r := &flushRequest{done: make(chan struct{})}
	select {
	case f.requests <- r:
	case <-ctx.Done():
		return manifest.Manifest{}, fmt.Errorf("flush: %w", ctx.Err())
	}
	select {
	case <-r.done:
		return r.manifest, r.err
	case <-ctx.Done():
		return manifest.Manifest{}, fmt.Errorf("flush: still writing: %w", ctx.Err())
	}
}

// run flushes until ctx ends. Then it waits until sourceEnded is closed, and flushes a last time if anything is new.
func (f *flusher) run(ctx context.Context, sourceEnded <-chan struct{}) error {
	s := f.schedule
	timer := time.NewTimer(0)
	defer timer.Stop()
	defer f.forced.Flush()
	for {
		timer.Reset(f.waitTime())
		changed := f.table.Changed()
		if !s.pending.IsZero() {
			changed = nil // a change is already pending; waking up for each further change would cost more than applying these changes
		}
		var request *flushRequest
		select {
		case <-ctx.Done():
			<-sourceEnded
			return f.finalFlush()
		case at := <-changed:
			s.addChange(at)
			f.tracker.setPending(s.pending)
		case request = <-f.requests:
		case <-f.keeper.damaged:
			if f.misplaced = f.table.View() == nil; !f.misplaced {
				s.addChange(time.Now())
			}
		case <-timer.C:
		}
		if f.misplaced = f.misplaced && f.table.View() == nil; f.misplaced {
			f.putBack()
		}
		now := time.Now()
		reason, due := s.writeDue(now, f.tracker.hasWritten())
		if request != nil {
			reason, due = store.ReasonForced, true
		}
		switch {
		case !due && s.idleDue(now):
			f.idleStep(ctx)
		case !due && f.noHorizon && s.pending.IsZero():
			f.updateHorizon()
		case due:
			if f.write(reason, request) == nil && reason == store.ReasonInterval {
				wake(f.keeper.regular)
				if f.uploader != nil {
					wake(f.uploader.regular)
				}
			}
		}
	}
}

// finalFlush writes the changes that are not in the file yet, after the source has ended. It also writes the file if readers no
// longer find it in place.
func (f *flusher) finalFlush() error {
	if f.table.View() == nil {
		return f.putBack()
	}
	s := f.schedule
	select {
	case at := <-f.table.Changed():
		s.addChange(at)
	default:
	}
	file := f.tracker.loadReport()
	incomplete := file.version > 0 && file.SHA256 == "" && f.table.View() != nil
	if s.pending.IsZero() && !incomplete && file.Error == "" && f.file.CheckInPlace() == "" {
		f.updateHorizon()
		return nil
	}
	if err := f.write(store.ReasonStop, nil); err != nil {
		return fmt.Errorf("the last flush failed, so feedback.json lacks the newest changes: %w", err)
	}
	return nil
}

// horizonCheck is the time between checks for a horizon while the manifest has no horizon.
const horizonCheck = time.Second

// waitTime returns the time until the next write, idle step, check for a horizon or call of putBack may be due.
func (f *flusher) waitTime() time.Duration {
	wait := f.schedule.waitTime(time.Now())
	if f.noHorizon {
		wait = min(wait, horizonCheck)
	}
	if f.misplaced {
		wait = min(wait, putBackRetry)
	}
	return wait
}

// updateHorizon writes the newest horizon into the manifest. Without a horizon, the next run copies the whole table. With an
// old horizon, the next run reads the rows of all transactions after that horizon again.
func (f *flusher) updateHorizon() {
	v := f.table.View()
	if v == nil || v.Horizon() == nil {
		return
	}
	f.noHorizon = false
	if err := f.file.UpdateHorizon(v); err != nil {
		f.log.Warn("the age of the file's rows could not be written", "error", err)
	}
}

// write writes the newest View, and answers the request if there is one. After a failure the changes stay pending.
func (f *flusher) write(reason manifest.Reason, request *flushRequest) error {
	s, start := f.schedule, time.Now()
	pending := s.pending
	s.pending = time.Time{}
	select {
	case <-f.table.Changed(): // drop this signal, because the View that is written below includes the change
	default:
	}
	result, version, err := f.writeNewest(start, reason)
	m, took := result.Manifest, time.Since(start)
	s.addWrite(time.Now(), took, err)
	switch {
	case version == 0: // there is no View yet, so nothing is pending
	case err != nil:
		s.pending = pending
		f.handleFailure(start, reason, err)
	default:
		s.addIdleWork(s.lastEnd)
		f.noHorizon = m.Horizon == nil
		if !f.tracker.hasWritten() {
			wake(f.volumes.written)
		}
		f.tracker.recordWrite(&m, version, took)
		f.metrics.addFlush(reason, took, result.BytesWritten)
		f.logFlush(reason, m, result.BytesWritten, took)
		f.warnIfOtherTable(&m)
	}
	f.reportResult(&result)
	if request != nil {
		request.manifest, request.err = m, err
		close(request.done)
	}
	return err
}

// reportResult reports what a write has found and kept, even if the write has failed.
func (f *flusher) reportResult(result *store.Result) {
	if result.Kept != nil {
		f.keeper.recordKept(result.Kept)
		if f.uploader != nil {
			wake(f.uploader.losses)
		}
	}
	if result.Damage != "" {
		f.keeper.recordDamage(result.Damage)
	}
	if result.Warning != "" {
		f.log.Warn(result.Warning)
	}
}

// warnIfOtherTable warns if the rows in the file now come from a different table, for example because the search_path of the
// role has changed.
func (f *flusher) warnIfOtherTable(m *manifest.Manifest) {
	if before := f.standing; before != nil && !m.HasTableOf(before) {
		f.log.Warn("feedback.json has another table now", "before", before.DescribeTable(), "now", m.DescribeTable(),
			"hint", "if this was not intended, name the table with its schema: --table schema.name")
	}
	f.standing = m
}

func (f *flusher) logFlush(reason manifest.Reason, m manifest.Manifest, written int64, took time.Duration) {
	fields := []any{"reason", string(reason), "rows", m.Rows, "bytes_written", written, "lsn", m.LSN, "ms", millis(took)}
	if reason == store.ReasonForced {
		f.forced.Add("", m.Bytes, fields...)
		return
	}
	f.log.Info("flushed", append(fields, "bytes", m.Bytes)...)
}

// writeNewest writes the newest View and returns its version, which is 0 if there is no View. It keeps no reference to the
// View, and the file releases rows as it writes them. If a row changes during the write, the memory of the row's old version
// can therefore be freed before the write ends.
func (f *flusher) writeNewest(start time.Time, reason manifest.Reason) (r store.Result, version uint64, err error) {
	view := f.table.View()
	if view == nil {
		return r, 0, errors.New("flush feedback.json: the table has not been copied yet")
	}
	f.tracker.startWrite(start)
	version = view.Version()
	r, err = f.file.Write(view, reason)
	return r, version, err
}

// handleFailure records the failure of a write that began at start. It also makes sure that another write is due, even if no
// change was pending.
func (f *flusher) handleFailure(start time.Time, reason manifest.Reason, err error) {
	s := f.schedule
	s.moreIdle = false
	s.addChange(start)
	if f.tracker.recordFailure(err, s.pending) {
		f.log.Error("flush failed; the file stays as it was", "reason", string(reason), "error", err, "next_attempt_in", s.pause.String())
	}
	f.metrics.flushErrors.Inc()
}

// idleStep does one step of the work that writes postpone until no changes arrive (see [store.File.Idle]).
func (f *flusher) idleStep(ctx context.Context) {
	s, start := f.schedule, time.Now()
	result, more, err := f.file.Idle(ctx, f.table.View())
	took := time.Since(start)
	s.addIdleStep(took, more)
	if result.Manifest.SHA256 != "" {
		f.tracker.setSHA256(result.Manifest.SHA256)
	}
	if result.Warning != "" {
		f.log.Warn(result.Warning)
	}
	if result.Damage != "" {
		f.keeper.recordDamage(result.Damage)
		s.addChange(start) // schedules a write, which then replaces the whole file
	}
	if err != nil {
		s.addWrite(time.Now(), took, err)
		f.handleFailure(start, store.ReasonChange, err)
	}
}
