package capture

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/capture/logical"
	"capture/capture/notify"
	"capture/capture/poll"
	"capture/capture/source"
	"capture/internal/guard"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/store"
)

// The states of a daemon. While a source runs, the state is the phase of the source. Between two attempts, it is
// stateWaiting or stateConnecting.
const (
	stateConnecting = string(source.Connecting)
	stateCopying    = string(source.Copying)
	stateFollowing  = string(source.Following)
	stateWaiting    = "waiting" // the last attempt failed, and the next attempt is not due yet
)

// supervisor runs one source at a time. The running source is the only writer of the Table. When the source ends, the
// supervisor pauses and runs the next source. It passes each barrier to the source that follows the table.
type supervisor struct {
	cfg        *Config
	database   *databaseConfig
	table      *snapshot.Table
	writeAhead func(context.Context, []snapshot.Part) bool // see [source.CopyOptions]
	stored     *storedRows
	log        hclog.Logger
	auto       *autoSource
	pauses     *backoff.ExponentialBackOff // pauses after failed attempts
	lastLogged string                      // error that was logged last; the same error is not logged twice

	mu          sync.Mutex
	changed     chan struct{} // closed and replaced when the state changes
	attempt     *attempt      // running attempt; nil between attempts
	past        source.Report // totals and server of the attempts that have ended; see endAttempt
	note        string        // reason why no better source is in use
	lastErr     string        // reason why the last attempt ended; "" once a source follows
	publication string        // error of the last attempt if it left a publication that makes the application's writes fail; otherwise ""
	waiting     bool          // whether the last attempt failed and the next attempt is not due yet
	failed      int           // number of attempts that have failed since a source last followed the table
	nextAttempt time.Time
	doubt       bool   // whether the rows in memory may be wrong; the next source must then copy the whole table
	resyncs     uint64 // total number of attempts that ended with a resync
	failures    uint64 // total number of attempts that failed
	lost        uint64 // total number of attempts that failed after the source had followed the table
}

// attempt is one run of one source.
type attempt struct {
	source   source.Source
	progress *source.Progress
	resyncs  chan *source.ResyncError // receives a request to end the source, see [supervisor.resync]
	done     chan struct{}            // closed when the source has ended
}

// followReport is the report of a supervisor about itself and its source.
type followReport struct {
	source.Report // report of the running attempt, with the totals of all attempts

	state       string
	note        string
	err         string
	failed      int
	nextAttempt time.Time
	resyncs     uint64
	failures    uint64
	lost        uint64
}

func newSupervisor(cfg *Config, table *snapshot.Table, file *store.File) *supervisor {
	s := &supervisor{
		cfg: cfg, table: table, writeAhead: file.WriteAhead, log: cfg.Logger, changed: make(chan struct{}),
		stored:   &storedRows{file: file, log: cfg.Logger},
		database: newDatabaseConfig(cfg),
		past:     source.Report{Source: cfg.Source},
		pauses:   newBackOff(firstRetry, cmp.Or(cfg.retry, longestRetry), retrySpread),
	}
	s.auto = newAutoSource(s)
	return s
}

// withdrawPublication drops capture's publication if it makes statements of the application fail. err is the reason why the
// table is not followed. The result is err, or a *postgres.Problem if the publication cannot be dropped.
func (s *supervisor) withdrawPublication(ctx context.Context, err error) error {
	q := postgres.NewQueryConn(s.database.currentConfig(), s.cfg.timeouts.Idle)
	defer q.Close()
	result := err
	failed := q.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		result = postgres.WithdrawPublication(ctx, conn, s.cfg.Table, err)
		return nil
	})
	if failed != nil { // the next attempt tries again
		s.log.Debug("connecting to withdraw the publication failed", "error", failed)
	}
	return result
}

// run runs one source after another until ctx ends or a source panics.
func (s *supervisor) run(ctx context.Context) error {
	for {
		s.database.reload()
		began := time.Now()
		followingSince, err := s.follow(ctx)
		if postgres.MayWithdraw(err) && ctx.Err() == nil {
			err = s.withdrawPublication(ctx, err)
		}
		s.table.Rollback()
		panicked := (*guard.PanicError)(nil)
		if resync := (*source.ResyncError)(nil); errors.As(err, &resync) && !resync.Intact || errors.As(err, &panicked) {
			s.update(func() { s.doubt = true })
		}
		s.dropDoubtfulHorizon() // even if ctx has ended: the next run must not trust the rows in the file
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if panicked != nil {
			return err
		}
		if !followingSince.IsZero() && time.Since(followingSince) > stableAfter {
			s.pauses.Reset()
		}
		pause := s.handleEnd(err, time.Since(began), !followingSince.IsZero())
		if !followingSince.IsZero() {
			s.lastLogged = ""
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// dropDoubtfulHorizon drops the horizon if the rows in memory may be wrong, so that the next source or the next run copies
// the whole table. The rows may be wrong if s.doubt is set. Rows of the source logical may also be wrong if they have no
// horizon, because this source drops the horizon itself when it finds a mistake. Rows of notify and poll have no horizon for
// a short time after each read, so for them a missing horizon is no sign of a mistake.
func (s *supervisor) dropDoubtfulHorizon() {
	s.mu.Lock()
	doubt := s.doubt
	s.mu.Unlock()
	v := s.table.View()
	if v == nil || !doubt && (v.Horizon() != nil || v.Origin().Source != "logical") {
		return
	}
	s.table.SetHorizon(nil)
	s.stored.dropHorizon(v)
}

// follow runs the configured source until the source ends. With --source auto, it runs the best source that works. It returns
// the time at which the source began to follow the table, or zero if the source never did.
func (s *supervisor) follow(ctx context.Context) (followingSince time.Time, err error) {
	if s.cfg.Source == "auto" {
		return s.auto.follow(ctx)
	}
	return s.runSource(ctx, s.cfg.Source, "")
}

// handleEnd records why an attempt ended, and returns the pause before the next attempt. took is the attempt's duration, and
// hadFollowed is true if the source followed the table.
func (s *supervisor) handleEnd(err error, took time.Duration, hadFollowed bool) (pause time.Duration) {
	if resync := (*source.ResyncError)(nil); errors.As(err, &resync) {
		s.log.Info("resyncing table", "reason", resync.Reason)
		pause = s.copyCooldown()
		if resync.Backoff {
			pause = max(pause, s.pauses.NextBackOff())
		}
		s.update(func() {
			s.resyncs++
			s.lastErr, s.publication = resync.Error(), ""
		})
		return pause
	}
	err = postgres.Explain(err)
	pause = s.pauses.NextBackOff()
	if errors.Is(err, snapshot.ErrNoRoom) {
		// Each attempt reads rows until no room is left. A pause as long as the attempt keeps such attempts from taking more than
		// half of the time.
		pause = max(pause, took)
	}
	if err.Error() != s.lastLogged {
		s.lastLogged = err.Error()
		s.log.Error("not following", "table", s.cfg.Table.String(), "error", err, "next_attempt_in", pause.Round(time.Millisecond).String())
	}
	publication := ""
	if p := (*postgres.Problem)(nil); errors.As(err, &p) && p.BreaksWrites() {
		publication = err.Error()
	}
	s.update(func() {
		s.failures++
		s.failed++
		s.publication = publication
		if hadFollowed {
			s.lost++
		}
		s.lastErr, s.waiting, s.nextAttempt = err.Error(), true, time.Now().Add(pause)
	})
	return pause
}

// copyCooldown returns the pause before another copy. The pause is as long as the last copy took, so that copies of a table
// whose definition keeps changing take at most half of the time.
func (s *supervisor) copyCooldown() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return max(time.Until(s.past.CopyEnded.Add(s.past.CopyTook)), firstRetry/2)
}

// runSource runs a source of the given kind until it fails, ctx ends or [supervisor.resync] is called. note is the reason why
// no better source is in use. It returns the time at which the source began to follow, or zero if it never did.
func (s *supervisor) runSource(ctx context.Context, kind, note string) (followingSince time.Time, err error) {
	progress := source.NewProgress(kind, func() { s.update(func() {}) })
	a := &attempt{
		source: newSource(kind, s.newEnv(kind, progress)), progress: progress,
		resyncs: make(chan *source.ResyncError, 1), done: make(chan struct{}),
	}
	doubt := false
	s.update(func() {
		s.attempt, s.note, s.waiting = a, note, false
		doubt, s.doubt = s.doubt, false
	})
	if doubt {
		s.table.SetHorizon(nil) // without a horizon, the source copies the whole table
	}
	defer func() { followingSince = s.endAttempt(a) }() // runs even if the source panics
	err = guard.RunWatched(ctx, s.log, "wait for a resync request", a.waitResync, func(ctx context.Context) error {
		return a.source.Follow(ctx, s.table)
	})
	return time.Time{}, err // the deferred call sets followingSince
}

// waitResync waits until [supervisor.resync] requests the end of the source, and returns the request as an error. It returns
// nil once ctx ends.
func (a *attempt) waitResync(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case r := <-a.resyncs:
		return r
	}
}

// newEnv returns the Env for the next attempt of a source of the given kind.
func (s *supervisor) newEnv(kind string, progress *source.Progress) *source.Env {
	env := s.cfg.env(kind, progress)
	env.Database, env.Copy.WriteAhead = s.database.currentConfig(), s.writeAhead
	env.LoadRows = s.stored.loader(kind, env.RowLimit())
	s.mu.Lock()
	defer s.mu.Unlock()
	env.SystemID, env.Publication = s.past.SystemID, s.publication
	return env
}

// newSource returns a source of the given kind for one attempt.
func newSource(kind string, env *source.Env) source.Source {
	switch kind {
	case "notify":
		return notify.New(env)
	case "poll":
		return poll.New(env)
	}
	return logical.New(env)
}

// endAttempt adds the totals and the server of an attempt to s.past. It does not keep the conditions that the attempt
// reported, or the amount of retained WAL, because they end with the attempt. It returns the time at which the source began
// to follow, or zero if it never did.
func (s *supervisor) endAttempt(a *attempt) (followingSince time.Time) {
	defer close(a.done)
	s.update(func() {
		r := addReport(s.past, a.progress.Report())
		s.past = source.Report{
			Source: r.Source, SystemID: r.SystemID, ServerVersion: r.ServerVersion, ServerAddress: r.ServerAddress, LastContact: r.LastContact,
			Counters: r.Counters, CopyEnded: r.CopyEnded, CopyTook: r.CopyTook,
			LastRead: r.LastRead,
		}
		s.attempt, followingSince = nil, r.FollowingSince
		if !followingSince.IsZero() {
			s.lastErr, s.failed = "", 0
		}
	})
	return followingSince
}

// addReport adds the totals of past to r, and returns the result. Fields that are not set in r yet, such as the server, come
// from past.
func addReport(past, r source.Report) source.Report {
	if r.SystemID == "" && r.ServerVersion == "" {
		r.SystemID, r.ServerVersion, r.ServerAddress = past.SystemID, past.ServerVersion, past.ServerAddress
	}
	r.Counters = past.Counters.Add(r.Counters)
	if r.LastContact.IsZero() {
		r.LastContact = past.LastContact
	}
	if r.CopyEnded.IsZero() {
		r.CopyEnded, r.CopyTook = past.CopyEnded, past.CopyTook
	}
	if r.LastRead.Ended.IsZero() {
		r.LastRead = past.LastRead
	}
	return r
}

// resync ends the running source. The next source then copies the whole table.
func (s *supervisor) resync(reason string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.doubt = true // the next source must copy the whole table, even if the current attempt is ending for another reason
	if s.attempt == nil {
		return
	}
	select {
	case s.attempt.resyncs <- &source.ResyncError{Reason: reason}:
	default: // another request is pending already, and one is enough
	}
}

// update runs f under the lock, and wakes all goroutines that wait for a change of the state.
func (s *supervisor) update(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f()
	close(s.changed)
	s.changed = make(chan struct{})
}

// state returns the state, and a channel that is closed when the state may have changed.
func (s *supervisor) state() (string, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stateLocked(), s.changed
}

func (s *supervisor) stateLocked() string {
	switch {
	case s.attempt != nil:
		return string(s.attempt.progress.Report().Phase)
	case s.waiting:
		return stateWaiting
	}
	return stateConnecting
}

// report returns the report of s and its source.
func (s *supervisor) report() followReport {
	s.mu.Lock()
	defer s.mu.Unlock()
	r := followReport{
		Report: s.past, state: s.stateLocked(), note: s.note, err: s.lastErr, failed: s.failed, nextAttempt: s.nextAttempt,
		resyncs: s.resyncs, failures: s.failures, lost: s.lost,
	}
	if s.attempt != nil {
		r.Report = addReport(s.past, s.attempt.progress.Report())
		r.state = string(r.Phase) // the state and the Report must be from the same moment
	}
	if r.state == stateFollowing {
		r.err, r.failed, r.nextAttempt = "", 0, time.Time{}
	}
	// A source looks for publications that make the application's writes fail, and reports them itself once its copy begins.
	// Until then, the report contains the text about the publication that the last attempt found.
	if s.publication != "" && r.state != stateFollowing && r.state != stateCopying {
		r.Conditions = maps.Clone(r.Conditions)
		if r.Conditions == nil {
			r.Conditions = map[string]string{}
		}
		r.Conditions[source.PublicationCondition] = s.publication
	}
	return r
}
