package capture

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v5"

	"capture/capture/source"
	"capture/internal/guard"
	"capture/internal/postgres"
	"capture/snapshot"
)

// The pauses between attempts grow from the first to the longest, each drawn at random around its length, so that a
// database that comes back is found soon and not by everybody at once.
const (
	firstPause   = 200 * time.Millisecond
	longestPause = 10 * time.Second
	// A source that fails sooner after it began to follow is no success: its pauses go on growing.
	settled = 5 * time.Second
)

// follow runs a source until ctx ends, again and again.
func (d *Daemon) follow(ctx context.Context) error {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval, pauses.Multiplier = firstPause, longestPause, 2
	said := ""
	best := newAuto(d)
	for {
		d.refresh()
		began := time.Now()
		src := source.Source(best)
		if d.cfg.Source != "auto" {
			src, _ = d.newSource(d.cfg.Source, "")
		}
		err := d.run(ctx, src)
		since := d.state.end()
		d.table.Rollback()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if broken := (*guard.PanicError)(nil); errors.As(err, &broken) {
			return err
		}
		if !since.IsZero() && time.Since(since) > settled {
			pauses.Reset()
		}
		var pause time.Duration
		if anew := (*source.ResyncError)(nil); errors.As(err, &anew) {
			d.log.Info("copying the table anew", "why", anew.Reason)
			d.metrics.resyncs.Inc()
			d.state.update(func(st *Status) { st.Error = anew.Error() })
			pause = d.rest()
			if anew.Backoff {
				pause = max(pause, pauses.NextBackOff())
			}
		} else {
			err = postgres.Explain(err)
			pause = pauses.NextBackOff()
			if errors.Is(err, snapshot.ErrNoRoom) {
				pause = max(pause, time.Since(began)) // each attempt reads as much as there is room for
			}
			if err.Error() != said { // the same trouble is said once, not at each attempt
				said = err.Error()
				d.log.Error("not following", "table", d.cfg.Table.String(), "error", err, "next_attempt_in", pause.Round(time.Millisecond).String())
			}
			d.metrics.failures.Inc()
			d.state.waits(err, pause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		if !since.IsZero() {
			said = ""
		}
	}
}

// run has src follow the table until it fails, ctx ends or again is called.
func (d *Daemon) run(ctx context.Context, src source.Source) error {
	inner, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	d.current.Store(&cancel)
	err := src.Follow(inner, d.table)
	if anew := (*source.ResyncError)(nil); ctx.Err() == nil && errors.As(context.Cause(inner), &anew) {
		return anew
	}
	return err
}

// again ends the source that runs, so that the table is copied anew.
func (d *Daemon) again(why *source.ResyncError) {
	if cancel := d.current.Load(); cancel != nil {
		(*cancel)(why)
	}
}

// refresh reads where and as whom to connect anew. What can't be read leaves it as it was: the attempt says what is wrong.
func (d *Daemon) refresh() {
	if d.cfg.ReloadDatabase == nil {
		return
	}
	if database, err := d.cfg.ReloadDatabase(); err == nil {
		d.cfg.Database = database
	} else {
		d.log.Debug("the database's address could not be read anew", "error", err)
	}
}

// rest is how long the database is left alone before another copy: as long as the last one took, so that a table whose
// definition changes all the time is not copied all the time.
func (d *Daemon) rest() time.Duration {
	r := d.state.report()
	return max(time.Until(r.CopyEnded.Add(r.CopyTook)), firstPause/2)
}

// newSource makes a source for the next attempt, and has the status show its progress. note is why it is no better one.
func (d *Daemon) newSource(kind, note string) (source.Source, *source.Progress) {
	progress := source.NewProgress(kind, d.state.phaseChanged)
	env := d.cfg.env(kind, progress)
	env.Copy.WriteAhead, env.SystemID = d.file.WriteAhead, d.state.report().SystemID
	var src source.Source
	switch kind {
	case "notify":
		src = newNotify(env)
	case "poll":
		src = newPoll(env)
	default:
		src = newLogical(env)
	}
	d.state.begin(src, progress, note)
	return src, progress
}
