package capture

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"time"

	"capture/capture/source"
	"capture/store"
)

// A write is late by the time that writes of this file take.
const (
	lateWrite    = 10 * time.Second
	lateByWrites = 3
)

// The states of a daemon, as Status names them.
const (
	stateConnecting = string(source.Connecting)
	stateFollowing  = string(source.Following)
	stateWaiting    = "waiting"
)

// state is what the daemon knows of itself: what concerns the file and the attempts to follow is kept here, what a source
// reports is in the attempt's Progress.
type state struct {
	mu      sync.Mutex
	status  Status        // of which Status fills in the rest
	waiting bool          // for the next attempt
	attempt *attempt      // the one under way; nil between two
	change  chan struct{} // closed, and made anew, at each change of the daemon's State or attempt

	last   source.Report   // by the attempts that have ended: what of them is still true
	totals source.Counters // of these

	file   fileState
	logErr func() error
	notes  map[string]string // conditions that a person should know, none of which stops the capture, by name
	idle   time.Duration     // after which a server that sends nothing is trouble
}

// attempt is one attempt to follow, by one source.
type attempt struct {
	source   source.Source
	progress *source.Progress
}

type fileState struct {
	FileStatus
	version uint64        // of the View it holds
	since   time.Time     // when the running write began
	took    time.Duration // what the last one took
}

func newState(cfg Config, file *store.File) *state {
	host, _ := os.Hostname()
	c := cfg.Database
	s := &state{change: make(chan struct{}), logErr: cfg.LogHealth, idle: cfg.timeouts.Idle, notes: map[string]string{}}
	s.status = Status{
		Version: cfg.Version, PID: os.Getpid(), Host: host, Started: time.Now().UTC(),
		Table: cfg.Table.String(), Source: cfg.Source,
	}
	if c != nil {
		s.status.Database = fmt.Sprintf("%s:%d/%s", c.Host, c.Port, c.Database)
	}
	s.file.Path = file.Path()
	if m, ok := file.Existing(); ok { // what an earlier run left: not current, but there to be read
		written := m.WrittenAt
		s.file.FileStatus = FileStatus{
			Path: file.Path(), Written: &written, Reason: string(m.Reason), Rows: m.Rows, Bytes: m.Bytes,
			SHA256: m.SHA256, LSN: m.LSN,
		}
	}
	return s
}

// begin makes src, which reports to progress, the source in use. note is why it is no better one.
func (s *state) begin(src source.Source, progress *source.Progress, note string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.endLocked()
	s.attempt, s.waiting = &attempt{src, progress}, false
	s.status.SourceNote = note
	s.wakeLocked()
}

// end says that the source in use has ended, and returns since when it had followed; zero where it had not.
func (s *state) end() (since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	since = s.endLocked()
	s.wakeLocked()
	return since
}

// endLocked keeps what of the attempt's report outlives it.
func (s *state) endLocked() (since time.Time) {
	if s.attempt == nil {
		return since
	}
	r := s.attempt.progress.Report()
	s.attempt = nil
	s.totals = s.totals.Add(r.Counters)
	s.last = s.withLast(r)
	return r.FollowingSince
}

// withLast fills in what the report leaves out with what earlier attempts have reported.
func (s *state) withLast(r source.Report) source.Report {
	if r.SystemID == "" && r.ServerVersion == "" {
		r.SystemID, r.ServerVersion = s.last.SystemID, s.last.ServerVersion
	}
	if r.LastContact.IsZero() { // so that it is known since when the rows are stale
		r.LastContact = s.last.LastContact
	}
	if r.CopyEnded.IsZero() {
		r.CopyEnded, r.CopyTook = s.last.CopyEnded, s.last.CopyTook
	}
	return r
}

// report is what the source in use reports, with what earlier ones have.
func (s *state) report() source.Report {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.reportLocked()
}

func (s *state) reportLocked() source.Report {
	if s.attempt != nil {
		r := s.withLast(s.attempt.progress.Report())
		r.Counters = r.Counters.Add(s.totals)
		return r
	}
	r := s.last
	return source.Report{
		Source: r.Source, Phase: source.Connecting, SystemID: r.SystemID, ServerVersion: r.ServerVersion,
		LastContact: r.LastContact, CopyEnded: r.CopyEnded, CopyTook: r.CopyTook, Counters: s.totals,
	}
}

// phaseChanged is called by the Progress in use.
func (s *state) phaseChanged() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.attempt != nil && s.attempt.progress.HasFollowed() {
		s.status.Error, s.status.NextAttempt, s.status.Attempts = "", nil, 0
	}
	s.wakeLocked()
}

func (s *state) wakeLocked() {
	close(s.change)
	s.change = make(chan struct{})
}

// stateLocked is the daemon's State.
func (s *state) stateLocked() string {
	switch {
	case s.waiting:
		return stateWaiting
	case s.attempt != nil:
		return string(s.attempt.progress.Report().Phase)
	}
	return stateConnecting
}

// update changes what the daemon itself says in its status.
func (s *state) update(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(&s.status)
}

// note keeps or, for an empty text, drops a condition that a person should know. It says whether that is news.
func (s *state) note(name, text string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.notes[name]
	if text == "" {
		delete(s.notes, name)
	} else {
		s.notes[name] = text
	}
	return was != text
}

// waits says that the next attempt comes after a pause.
func (s *state) waits(err error, pause time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := time.Now().Add(pause).UTC()
	s.waiting = true
	s.status.Error, s.status.NextAttempt = err.Error(), &next
	s.status.Attempts++
	s.wakeLocked()
}

// following is the attempt in use once its source follows. It fails at once where the last attempt has failed.
func (s *state) following(ctx context.Context) (*attempt, error) {
	for {
		s.mu.Lock()
		a, st, now, change := s.attempt, s.status, s.stateLocked(), s.change
		s.mu.Unlock()
		switch {
		case now == stateFollowing:
			return a, nil
		case now == stateWaiting:
			return nil, fmt.Errorf("not following (next attempt at %s): %s", st.NextAttempt.Format(time.TimeOnly), st.Error)
		}
		select {
		case <-change:
		case <-ctx.Done():
			return nil, fmt.Errorf("still %s: %w", now, ctx.Err())
		}
	}
}

// ended waits until a is in use no more.
func (s *state) ended(ctx context.Context, a *attempt) error {
	for {
		s.mu.Lock()
		now, change := s.attempt, s.change
		s.mu.Unlock()
		if now != a {
			return nil
		}
		select {
		case <-change:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// until waits for a State; it is false where ctx ended first.
func (s *state) until(ctx context.Context, is func(state string) bool) bool {
	for {
		s.mu.Lock()
		now, change := s.stateLocked(), s.change
		s.mu.Unlock()
		if is(now) {
			return true
		}
		select {
		case <-change:
		case <-ctx.Done():
			return false
		}
	}
}

func (s *state) written() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file.version > 0
}

func (s *state) fileError() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file.Error
}

// manifestIncomplete reports whether the manifest of the last write lacks the SHA-256 of the whole file.
func (s *state) manifestIncomplete() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.file.version > 0 && s.file.SHA256 == ""
}

func (s *state) pending(since time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !since.IsZero() {
		s.file.Pending = utc(since)
	}
}

func (s *state) writing(start time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file.since = start
}

// failedWrite notes why a write failed, and says whether that is news.
func (s *state) failedWrite(err error, pending time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	news := s.file.Error != err.Error()
	s.file.Error, s.file.since, s.file.Pending = err.Error(), time.Time{}, utc(pending)
	return news
}

func (s *state) wrote(m store.Manifest, version uint64, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	written := m.WrittenAt.UTC()
	s.file = fileState{
		FileStatus: FileStatus{
			Path: s.file.Path, Written: &written, Reason: string(m.Reason), Rows: m.Rows, Bytes: m.Bytes,
			SHA256: m.SHA256, LSN: m.LSN, Millis: millis(took),
		},
		version: version, took: took,
	}
}

// completed takes over what the manifest of the last write has got since.
func (s *state) completed(m store.Manifest) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.file.SHA256 = m.SHA256
}

func utc(t time.Time) *time.Time {
	t = t.UTC()
	return &t
}

// Status is how things are now.
func (d *Daemon) Status() Status {
	st, _ := d.report()
	return st
}

// report returns the Status, and the source's report that it has been made of.
func (d *Daemon) report() (Status, source.Report) {
	view, shown, usage := d.table.View(), d.View(), d.table.Usage()
	s := d.state
	s.mu.Lock()
	defer s.mu.Unlock()
	st, r := s.status, s.reportLocked()
	st.State = string(r.Phase)
	if s.waiting {
		st.State = stateWaiting
	}
	st.Source = cmp.Or(r.Source, st.Source)
	st.SystemID, st.ServerVersion = r.SystemID, r.ServerVersion
	st.LagBytes, st.LagSeconds, st.RetainedWAL = r.LagBytes, r.LagSeconds, r.RetainedWAL
	st.Transactions = r.Counters.Transactions
	if !r.LastContact.IsZero() {
		st.LastContact = utc(r.LastContact)
	}
	if shown != nil {
		st.Rows, st.Bytes = shown.Rows(), shown.Bytes()
	}
	if view != nil {
		if at := view.Position(); at.LSN > 0 {
			st.LSN = at.LSN.String()
			if !at.CommitTime.IsZero() {
				st.CommitTime = utc(at.CommitTime)
			}
		}
	}
	if usage.Limit > 0 {
		st.Memory = &MemoryStatus{Limit: usage.Limit, Resident: usage.Resident, Spilled: usage.Spilled}
	}
	st.File = s.file.FileStatus
	st.File.UpToDate = view != nil && s.file.version == view.Version()
	if st.File.UpToDate {
		st.File.Pending = nil
	}
	st.Checks = s.checks(&st, r)
	st.Ready = st.Checks[0].OK && st.Checks[1].OK
	return st, r
}

// checks are the conditions of readiness (following, file), then what a person should know besides.
func (s *state) checks(st *Status, r source.Report) []Check {
	now := time.Now()
	following := Check{Name: "following", OK: true}
	switch {
	case st.State != stateFollowing && st.Error != "":
		following.OK = false
		following.Detail = st.Error
		if st.State == stateWaiting {
			following.Detail += fmt.Sprintf(" (attempt %d, the next at %s)", st.Attempts, st.NextAttempt.Format(time.RFC3339))
		}
	case st.State != stateFollowing:
		following.OK, following.Detail = false, st.State
		if r.Blocked != "" {
			following.Detail += ": " + r.Blocked
		}
	case st.LastContact != nil && now.Sub(*st.LastContact) > s.idle:
		following.OK = false
		following.Detail = fmt.Sprintf("no data from the server for %s", now.Sub(*st.LastContact).Round(time.Second))
	default:
		following.Detail = fmt.Sprintf("by %s since %s", st.Source, r.FollowingSince.UTC().Format(time.RFC3339))
		if st.SourceNote != "" {
			following.Detail += "; " + st.SourceNote
		}
	}
	file := Check{Name: "file", OK: true, Detail: "holds the newest state"}
	late := max(lateWrite, lateByWrites*s.file.took)
	switch {
	case s.file.Error != "":
		file.OK, file.Detail = false, s.file.Error
	case !s.file.since.IsZero() && now.Sub(s.file.since) > late:
		file.OK = false
		file.Detail = fmt.Sprintf("a write has been under way for %s: the volume is slow or hangs", now.Sub(s.file.since).Round(time.Second))
	case s.file.version == 0:
		file.OK, file.Detail = false, "not written yet by this run"
	case st.File.Pending != nil && now.Sub(*st.File.Pending) > late:
		file.OK = false
		file.Detail = fmt.Sprintf("changes have been waiting for %s", now.Sub(*st.File.Pending).Round(time.Second))
	case !st.File.UpToDate:
		file.Detail = "a change is about to be written"
	}
	checks := []Check{following, file}
	logs := Check{Name: "logs", OK: true, Detail: "written"}
	if s.logErr != nil {
		if err := s.logErr(); err != nil {
			logs.OK, logs.Detail = false, err.Error()
		}
	}
	checks = append(checks, logs)
	notes := maps.Clone(s.notes)
	maps.Copy(notes, r.Conditions)
	for _, name := range slices.Sorted(maps.Keys(notes)) {
		checks = append(checks, Check{Name: name, Detail: notes[name]})
	}
	return checks
}
