package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"capture/capture/source"
	"capture/snapshot"
)

// verifyRetry is how long after a comparison that could not be made the next is tried.
const verifyRetry = 10 * time.Minute

// verify compares the captured rows with the table regularly, until ctx ends. What differs is counted, said, and mended
// by a fresh copy: there is no way for it to happen that is known.
func (d *Daemon) verify(ctx context.Context) error {
	wait := d.cfg.VerifyInterval
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
		start := time.Now()
		rows, keys, err := d.cfg.Compare(ctx, d.cfg.Database, d.settledView)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			d.log.Warn("the comparison with the table could not be made", "error", err)
			wait = min(verifyRetry, d.cfg.VerifyInterval)
			continue
		case rows > 0:
			d.metrics.differences.Add(float64(rows))
			d.log.Error("feedback.json differs from the table; the table is copied anew", "rows", rows, "keys", keys)
			d.state.note("difference", fmt.Sprintf("%d rows differed from the table at %s; the table was copied anew", rows, start.UTC().Format(time.RFC3339)))
			d.again(&source.ResyncError{Reason: fmt.Sprintf("%d rows differ from the table", rows)})
		default:
			d.state.note("difference", "")
			d.log.Info("verified: no difference from the table", "ms", millis(time.Since(start)))
		}
		d.metrics.lastVerified.SetToCurrentTime()
		wait = d.cfg.VerifyInterval
	}
}

// settledView is the newest View, once it holds all that was committed before the call.
func (d *Daemon) settledView(ctx context.Context) (*snapshot.View, error) {
	if err := d.barrier(ctx); err != nil {
		return nil, err
	}
	return d.table.View(), nil
}

// barrier returns once all that was committed before the call is in a View.
func (d *Daemon) barrier(ctx context.Context) error {
	for {
		a, err := d.state.following(ctx)
		if err != nil {
			return err
		}
		err = a.source.Barrier(ctx)
		if retry := (*source.ResyncError)(nil); !errors.As(err, &retry) && !errors.Is(err, source.ErrNotFollowing) {
			return err
		}
		// The table is about to be copied anew, which takes in all that was committed before.
		if err := d.state.ended(ctx, a); err != nil {
			return err
		}
	}
}
