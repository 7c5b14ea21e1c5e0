package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/capture/logical"
	"capture/capture/notify"
	"capture/capture/source"
	"capture/internal/guard"
	"capture/internal/postgres"
)

const (
	// Intervals between probes for a better source. If an operator must change something before the better source can work, the
	// interval is an hour. If the obstacle is temporary (for example, all slots are in use), the interval is a minute.
	permanentProbeInterval = time.Hour
	transientProbeInterval = time.Minute
	// setupCheckInterval is the time between checks for a publication and triggers that `capture setup` may have created.
	setupCheckInterval = time.Minute
	// A source counts as unavailable after maxUnknownFailures successive failures for an unknown reason. A failure counts only
	// if the database accepts ordinary connections at that time.
	maxUnknownFailures = 3
)

// autoSource follows the table with the best source that works. It changes to a better source once that source works.
type autoSource struct {
	supervisor *supervisor
	lastNote   map[string]string // last logged reason why no better source runs, by kind of the running source
	failures   map[string]int    // number of successive failures of unknown class, by kind of source
}

func newAutoSource(s *supervisor) *autoSource {
	return &autoSource{supervisor: s, lastNote: map[string]string{}, failures: map[string]int{}}
}

// unavailable is a kind of source that cannot be used, and the reason.
type unavailable struct {
	kind      string
	err       error
	transient bool // whether the reason is temporary
}

// follow tries the sources, best first, until one of them follows the table. It returns when that source ends, or when it is
// pointless to try another source.
func (a *autoSource) follow(ctx context.Context) (followingSince time.Time, err error) {
	var skipped []unavailable
	for i, kind := range sourceKinds {
		since, err := a.run(ctx, kind, skipped)
		err = postgres.Explain(err) // also removes the texts of rows from the message, because the log and the status must not contain them
		if !since.IsZero() && i == 0 {
			clear(a.lastNote)
		}
		if !since.IsZero() || ctx.Err() != nil || i == len(sourceKinds)-1 {
			return since, err
		}
		// supervisor.run withdraws the publication only if follow returns err. If the next source follows the table, follow
		// does not return err. Therefore, withdraw the publication here.
		if postgres.MayWithdraw(err) {
			err = a.supervisor.withdrawPublication(ctx, err)
		}
		u, ok := a.checkUnavailable(ctx, kind, err)
		if !ok || slices.ContainsFunc(skipped, func(o unavailable) bool { return o.err.Error() == err.Error() }) {
			return since, err // err is no reason to try the next source, or an earlier source has failed with the same error
		}
		skipped = append(skipped, u)
		a.supervisor.table.Rollback()
	}
	panic("unreachable: the last source returns")
}

// run runs a source of the given kind. It ends the source with a *[source.ResyncError] once one of the skipped sources works.
func (a *autoSource) run(ctx context.Context, kind string, skipped []unavailable) (since time.Time, err error) {
	note := a.logNote(kind, skipped)
	if len(skipped) == 0 {
		return a.supervisor.runSource(ctx, kind, note)
	}
	err = guard.RunWatched(ctx, a.supervisor.log, "probe for a better source",
		func(ctx context.Context) error { return a.probeLoop(ctx, kind, skipped) },
		func(ctx context.Context) (err error) {
			since, err = a.supervisor.runSource(ctx, kind, note)
			return err
		})
	return since, err
}

// logNote returns the reason why a source of this kind runs instead of a better source. It logs the reason if it is new.
func (a *autoSource) logNote(kind string, skipped []unavailable) string {
	note := skippedNote(skipped)
	if len(skipped) > 0 && a.lastNote[kind] != note {
		a.lastNote[kind] = note
		a.logUnavailable(skipped[len(skipped)-1], kind)
	}
	return note
}

// skippedNote returns the reasons why the skipped sources cannot be used.
func skippedNote(skipped []unavailable) string {
	reasons := make([]string, len(skipped))
	for i, u := range skipped {
		reasons[i] = "not by " + u.kind + ": " + strings.TrimSuffix(u.err.Error(), ";") // a hint may end with an SQL statement and its semicolon
	}
	return strings.Join(reasons, "; ")
}

// logUnavailable logs why a source cannot be used, and which kind of source is used instead.
func (a *autoSource) logUnavailable(u unavailable, instead string) {
	a.supervisor.log.Warn("preferred source unavailable", "source", u.kind, "reason", u.err.Error(), "instead", instead)
}

// probeLoop probes the skipped sources at regular intervals. If somebody may have run `capture setup` for one of them in the
// meantime, probeLoop probes that source without waiting for the end of the interval. Once a probe succeeds, probeLoop returns
// a *[source.ResyncError]. runningKind is the kind of the running source.
func (a *autoSource) probeLoop(ctx context.Context, runningKind string, skipped []unavailable) error {
	skipped = slices.Clone(skipped)
	interval := permanentProbeInterval
	if slices.ContainsFunc(skipped, func(u unavailable) bool { return u.transient }) {
		interval = transientProbeInterval
	}
	interval = cmp.Or(a.supervisor.cfg.intervals.probe, interval)
	tick := time.NewTicker(min(interval, a.supervisor.cfg.intervals.setupCheck))
	defer tick.Stop()
	seen := map[string]string{} // the last setup state, by kind of source
	for _, u := range skipped {
		if p := (*postgres.Problem)(nil); !errors.As(u.err, &p) || !p.NeedsSetup() {
			// This source cannot be used for another reason than a missing setup. Record what `capture setup` has created so
			// far, so that only a change of this state causes a probe before the interval ends.
			seen[u.kind], _ = a.loadSetupState(ctx, u.kind)
		}
	}
	next := time.Now().Add(interval)
	for {
		due := !time.Now().Before(next)
		if due {
			next = time.Now().Add(interval)
		}
		for i, u := range skipped {
			setup, known := a.loadSetupState(ctx, u.kind)
			prepared := setup != "" && setup != seen[u.kind]
			if known {
				seen[u.kind] = setup
			}
			if !due && !prepared {
				continue
			}
			err := postgres.Explain(probeSource(ctx, u.kind, a.supervisor.newEnv(u.kind, source.NewProgress(u.kind, nil))))
			if err == nil {
				return &source.ResyncError{Reason: fmt.Sprintf("the table can be followed by %s now", u.kind)}
			}
			a.supervisor.log.Debug("source still unavailable", "source", u.kind, "reason", err)
			if c := classify(err); (c == postgres.Permanent || c == postgres.Transient) && err.Error() != u.err.Error() {
				skipped[i].err = err // the note below contains the new reason
				a.logUnavailable(skipped[i], runningKind)
				note := skippedNote(skipped)
				a.lastNote[runningKind] = note
				a.supervisor.update(func() { a.supervisor.note = note })
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// loadSetupState returns a text that changes when somebody runs `capture setup` for this kind of source; see
// [postgres.LoadSetupState]. If that state cannot be read, known is false.
func (a *autoSource) loadSetupState(ctx context.Context, kind string) (state string, known bool) {
	err := a.query(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		state, err = postgres.LoadSetupState(ctx, conn, a.supervisor.cfg.Table, kind)
		return err
	})
	if err != nil && ctx.Err() == nil {
		a.supervisor.log.Debug("reading what capture setup has created failed", "source", kind, "error", err)
	}
	return state, err == nil
}

// probeSource returns the error that would keep a source of the given kind from following the table now, or nil.
func probeSource(ctx context.Context, kind string, env *source.Env) error {
	if kind == "notify" {
		return notify.Probe(ctx, env)
	}
	return logical.Probe(ctx, env)
}

// checkUnavailable reports whether this source cannot be used although the database is reachable. If so, autoSource should try
// the next source. Otherwise, this attempt ends, and the next attempt begins with the best source again. err is the error with
// which the source ended before it followed the table.
func (a *autoSource) checkUnavailable(ctx context.Context, kind string, err error) (unavailable, bool) {
	u := unavailable{kind: kind, err: err}
	switch classify(err) {
	case postgres.Permanent:
	case postgres.Transient:
		u.transient = true
	case postgres.Unknown:
		// A proxy that cannot replicate may just close the connection. That looks like a network failure, so ping checks whether
		// the database still accepts ordinary connections.
		if a.ping(ctx) != nil {
			return u, false
		}
		if a.failures[kind]++; a.failures[kind] < maxUnknownFailures {
			return u, false
		}
		u.transient = true
	default:
		return u, false
	}
	a.failures[kind] = 0
	return u, true
}

// ping connects to the database and waits for an answer.
func (a *autoSource) ping(ctx context.Context) error {
	return a.query(ctx, func(ctx context.Context, c *pgx.Conn) error { return c.Ping(ctx) })
}

// query runs f with a new connection to the database.
func (a *autoSource) query(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	conn := postgres.NewQueryConn(a.supervisor.database.currentConfig(), a.supervisor.cfg.timeouts.Idle)
	defer conn.Close()
	return conn.Do(ctx, f)
}

// classify returns the class of the error of a source that ended before it followed the table. A resync or a panic is no reason
// to use another source, so it counts as Unreachable.
func classify(err error) postgres.ErrorClass {
	var (
		resync   *source.ResyncError
		panicked *guard.PanicError
	)
	if err == nil || errors.As(err, &resync) || errors.As(err, &panicked) {
		return postgres.Unreachable
	}
	return postgres.Classify(err)
}
