package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/guard"
	"capture/internal/postgres"
	"capture/snapshot"
)

const (
	// How often it is looked whether a better source can be had: seldom for what a person must change, often for what
	// passes by itself, such as all slots being in use.
	betterEvery = time.Hour
	betterSoon  = time.Minute
	// How many attempts in a row a better source may fail for a reason that may be the network's, while the database
	// answers otherwise.
	patienceWith = 3
)

// auto follows by the best source that works now, and changes to a better one when that works.
type auto struct {
	d       *Daemon
	said    map[string]string // by source: why not a better one, as last logged
	strange map[string]int    // by source: failures in a row that may be the network's
}

func newAuto(d *Daemon) *auto {
	return &auto{d: d, said: map[string]string{}, strange: map[string]int{}}
}

// sources are the kinds of source, the better first.
var sources = []string{"logical", "notify", "poll"}

// refusal is why a source is not to be had.
type refusal struct {
	source string
	err    error
	passes bool // by itself
}

// Follow has the first source that is to be had follow the table.
func (a *auto) Follow(ctx context.Context, t *snapshot.Table) error {
	var refused []refusal
	for i, kind := range sources {
		src, progress := a.d.newSource(kind, a.note(kind, refused))
		err := a.try(ctx, src, refused, t)
		followed := progress.HasFollowed()
		if followed && i == 0 {
			clear(a.said)
		}
		if followed || ctx.Err() != nil || i == len(sources)-1 {
			return err
		}
		r, ok := a.refused(ctx, kind, err)
		if !ok || slices.ContainsFunc(refused, func(o refusal) bool { return o.err.Error() == err.Error() }) {
			return err // the next source would say the same
		}
		refused = append(refused, r)
		t.Rollback()
	}
	return nil // never: the last source returns
}

// Barrier implements Source. The source that follows is asked, never this one.
func (a *auto) Barrier(context.Context) error { return source.ErrNotFollowing }

// note says why kind is tried and no better source: for the status, and once in the log.
func (a *auto) note(kind string, refused []refusal) string {
	texts := make([]string, len(refused))
	for i, r := range refused {
		texts[i] = "not by " + r.source + ": " + r.err.Error()
	}
	text := strings.Join(texts, "; ")
	if len(refused) > 0 && a.said[kind] != text {
		a.said[kind] = text
		r := refused[len(refused)-1]
		a.d.log.Warn("a better source is not to be had", "source", r.source, "why", r.err.Error(), "instead", kind)
	}
	return text
}

// try runs one source, and ends it with an *source.ResyncError when one of those that were refused before it works.
func (a *auto) try(ctx context.Context, src source.Source, refused []refusal, t *snapshot.Table) error {
	if len(refused) == 0 {
		return src.Follow(ctx, t)
	}
	return guard.RunWatched(ctx, a.d.log, "look for a better source",
		func(ctx context.Context) error { return a.look(ctx, refused) },
		func(ctx context.Context) error { return src.Follow(ctx, t) })
}

// look tries from time to time whether one of the refused sources works, and then returns an *source.ResyncError.
func (a *auto) look(ctx context.Context, refused []refusal) error {
	every := betterEvery
	for _, r := range refused {
		if r.passes {
			every = betterSoon
		}
	}
	if a.d.cfg.intervals.probe > 0 {
		every = a.d.cfg.intervals.probe
	}
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		for _, r := range refused {
			err := a.probe(ctx, r.source)
			if err == nil {
				return &source.ResyncError{Reason: fmt.Sprintf("it can be followed by %s now", r.source)}
			}
			a.d.log.Debug("still not to be had", "source", r.source, "why", err)
		}
	}
}

// probe says whether a source would work now.
func (a *auto) probe(ctx context.Context, kind string) error {
	s := postgres.NewQueryConn(a.d.cfg.Database, a.d.cfg.timeouts.Idle)
	defer s.Close()
	return s.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if kind == "notify" {
			n := newNotify(a.d.cfg.env(kind, source.NewProgress(kind, nil)))
			defer n.side.Close()
			return n.prepare(ctx)
		}
		srv, tab, err := postgres.LoadServerAndTable(ctx, conn, a.d.cfg.Table)
		if err != nil {
			return err
		}
		if srv.UsedSlots >= srv.MaxSlots {
			return errors.New("all replication slots are in use")
		}
		if _, _, err := postgres.EnsurePublication(ctx, conn, &srv, tab); err != nil {
			return err
		}
		repl, err := postgres.ConnectReplication(ctx, a.d.cfg.Database)
		if err != nil {
			return err
		}
		defer func() { _ = repl.Close(ctx) }() // it is of no more use
		if _, err := pglogrepl.IdentifySystem(ctx, repl); err != nil {
			return fmt.Errorf("identify the system: %w", err)
		}
		return nil
	})
}

// refused says whether err, with which a source ended before it followed, means that this source is not to be had here,
// while the database itself is there. Otherwise the same source is tried again.
func (a *auto) refused(ctx context.Context, kind string, err error) (refusal, bool) {
	r := refusal{source: kind, err: err}
	switch classify(err) {
	case postgres.Permanent:
	case postgres.Transient:
		r.passes = true
	case postgres.Unknown:
		// A proxy that knows no replication may just hang up. That is told from a network that fails by asking the
		// database otherwise, and by patience.
		s := postgres.NewQueryConn(a.d.cfg.Database, a.d.cfg.timeouts.Idle)
		defer s.Close()
		if s.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return conn.Ping(ctx) }) != nil {
			return r, false
		}
		if a.strange[kind]++; a.strange[kind] < patienceWith {
			return r, false
		}
		r.passes = true
	default:
		return r, false
	}
	a.strange[kind] = 0
	return r, true
}

// classify returns the class of the error with which a source ended before it followed.
func classify(err error) postgres.ErrorClass {
	var (
		anew  *source.ResyncError
		inner *guard.PanicError
	)
	if err == nil || errors.As(err, &anew) || errors.As(err, &inner) {
		return postgres.Unreachable
	}
	return postgres.Classify(err)
}
