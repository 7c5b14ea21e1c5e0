package capture

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"

	"capture/store"
)

// A write is late by the time that writes of this file take.
const (
	lateWrite    = 10 * time.Second
	lateByWrites = 3
)

// The states of a daemon, as Status names them.
const (
	stateConnecting = "connecting"
	stateCopying    = "copying"
	stateFollowing  = "following"
	stateWaiting    = "waiting"
	stateStopping   = "stopping"
)

// state is what the daemon knows of itself: written by the source and the flusher, read by anyone.
type state struct {
	mu     sync.Mutex
	status Status
	source Source        // in use while following
	began  time.Time     // when this following began; zero while not
	change chan struct{} // closed, and made anew, at each change of status.State

	copyEnded time.Time
	copyTook  time.Duration

	file    fileState
	logErr  func() error
	notes   map[string]string // conditions that a person should know, none of which stops the capture, by name
	traffic func() time.Time  // when the server last said anything
	silence time.Duration     // after which that is trouble
	lag     func() (bytes int64, seconds float64)

	transactions atomic.Uint64
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
	s := &state{change: make(chan struct{}), logErr: cfg.LogHealth, silence: cfg.bounds.silence, notes: map[string]string{}}
	s.status = Status{
		Version: cfg.Version, PID: os.Getpid(), Host: host, Started: time.Now().UTC(),
		State: stateConnecting, Table: cfg.Table.String(), Source: cfg.Source,
	}
	if c != nil {
		s.status.Database = fmt.Sprintf("%s:%d/%s", c.Host, c.Port, c.Database)
	}
	s.file.Path = file.Path()
	if m, ok := file.Found(); ok { // what an earlier run left: not current, but there to be read
		written := m.WrittenAt
		s.file.FileStatus = FileStatus{
			Path: file.Path(), Written: &written, Reason: string(m.Reason), Rows: m.Rows, Bytes: m.Bytes,
			SHA256: m.SHA256, LSN: m.LSN,
		}
	}
	return s
}

// copied notes that a whole copy has just ended.
func (s *state) copied(took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.copyEnded, s.copyTook = time.Now(), took
}

func (s *state) lastCopy() (ended time.Time, took time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.copyEnded, s.copyTook
}

// update changes the status under its lock, and wakes those who wait for another State.
func (s *state) update(f func(*Status)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.status.State
	f(&s.status)
	if s.status.State != was {
		close(s.change)
		s.change = make(chan struct{})
	}
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

// sayReplaced says, once, where bytes of the table are no text.
func (d *Daemon) sayReplaced(replaced bool) {
	const text = "some bytes in the table are no UTF-8 text; feedback.json has U+FFFD for each"
	if replaced && d.state.note("encoding", text) {
		d.log.Warn(text, "table", d.cfg.Table.String())
	}
}

// follows says that src is in the stream from now on.
func (s *state) follows(src Source, traffic func() time.Time, lag func() (int64, float64)) {
	s.update(func(st *Status) {
		st.State, st.Error, st.NextAttempt, st.Attempts = stateFollowing, "", nil, 0
		s.source, s.began, s.traffic, s.lag = src, time.Now(), traffic, lag
	})
}

// left says that no source follows any more, and returns since when the last one had.
func (s *state) left() (since time.Time) {
	s.update(func(st *Status) {
		st.State = stateConnecting
		since = s.began
		if s.traffic != nil {
			if last := s.traffic(); !last.IsZero() {
				st.LastContact = utc(last) // kept, so that it is known since when the rows are stale
			}
		}
		s.source, s.began, s.traffic, s.lag = nil, time.Time{}, nil, nil
	})
	return since
}

// waiting says that the next attempt comes after a pause.
func (s *state) waiting(err error, pause time.Duration) {
	s.update(func(st *Status) {
		next := time.Now().Add(pause).UTC()
		st.State, st.NextAttempt = stateWaiting, &next
		st.Error = err.Error()
		st.Attempts++
	})
}

// following is the source once one follows. It fails at once where the last attempt has failed.
func (s *state) following(ctx context.Context) (Source, error) {
	for {
		s.mu.Lock()
		src, st, change := s.source, s.status, s.change
		s.mu.Unlock()
		if src != nil {
			return src, nil
		}
		if st.State == stateWaiting && st.Attempts > 0 && st.Error != "" {
			return nil, fmt.Errorf("not following (next attempt at %s): %s", st.NextAttempt.Format(time.TimeOnly), st.Error)
		}
		select {
		case <-change:
		case <-ctx.Done():
			return nil, fmt.Errorf("still %s: %w", st.State, ctx.Err())
		}
	}
}

// until waits for a State; it is false where ctx ended first.
func (s *state) until(ctx context.Context, is func(state string) bool) bool {
	for {
		s.mu.Lock()
		now, change := s.status.State, s.change
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

// current says whether src is the source in use.
func (s *state) current(src Source) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.source == src
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
	view, shown, usage := d.table.View(), d.View(), d.table.Usage()
	s := d.state
	s.mu.Lock()
	defer s.mu.Unlock()
	st := s.status
	st.Transactions = s.transactions.Load()
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
	if s.traffic != nil {
		if last := s.traffic(); !last.IsZero() {
			st.LastContact = utc(last)
		}
	}
	if s.lag != nil {
		st.LagBytes, st.LagSeconds = s.lag()
	}
	st.File = s.file.FileStatus
	st.File.UpToDate = view != nil && s.file.version == view.Version()
	if st.File.UpToDate {
		st.File.Pending = nil
	}
	st.Checks = s.checks(&st)
	st.Ready = st.Checks[0].OK && st.Checks[1].OK
	return st
}

// checks are the conditions of readiness (following, file), then what a person should know besides.
func (s *state) checks(st *Status) []Check {
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
		if text := s.notes["start"]; text != "" {
			following.Detail += ": " + text
		}
	case st.LastContact != nil && now.Sub(*st.LastContact) > s.silence:
		following.OK = false
		following.Detail = fmt.Sprintf("no word from the server for %s", now.Sub(*st.LastContact).Round(time.Second))
	default:
		following.Detail = fmt.Sprintf("by %s since %s", st.Source, s.began.UTC().Format(time.RFC3339))
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
	for _, name := range slices.Sorted(maps.Keys(s.notes)) {
		if name != "start" {
			checks = append(checks, Check{Name: name, Detail: s.notes[name]})
		}
	}
	return checks
}

// lsnText is an LSN for people and JSON; "" for none.
func lsnText(lsn pglogrepl.LSN) string {
	if lsn == 0 {
		return ""
	}
	return lsn.String()
}
