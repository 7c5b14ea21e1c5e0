package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	"capture/internal/postgres"
)

// CheckInterval is the time between regular checks of what a source cannot see in its changes, such as the table's
// definition.
const CheckInterval = 2 * time.Second

// CheckLoop calls check at each CheckInterval until ctx ends. It returns check's error if the source has to end because of
// it: a *ResyncError, or a problem found in the database. Any other error is that of check's own connection. It becomes a
// condition until check succeeds again; the connection that the source follows by reports its own errors.
func (e *Env) CheckLoop(ctx context.Context, check func(context.Context) error) error {
	tick := time.NewTicker(CheckInterval)
	defer tick.Stop()
	const condition = "checks"
	failing := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := check(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			failing = false
			e.Progress.SetCondition(condition, "")
		case endsSource(err):
			return err
		default:
			if !failing {
				e.Logger.Warn("regular check of the table failed", "error", err)
				e.Progress.SetCondition(condition, "the regular check of the table fails: "+err.Error())
			}
			failing = true
		}
	}
}

// endsSource reports whether err is about the table or the server as they are now, rather than about a connection.
func endsSource(err error) bool {
	resync, problem := (*ResyncError)(nil), (*postgres.Problem)(nil)
	return errors.As(err, &resync) || errors.As(err, &problem) && (problem.TableMissing() || problem.Err == nil)
}

// WithFileNote adds to an error that says that the table is missing what becomes of the file.
func WithFileNote(err error) error {
	if problem := (*postgres.Problem)(nil); errors.As(err, &problem) && problem.TableMissing() {
		return fmt.Errorf("%w; feedback.json keeps the last state it had", err)
	}
	return err
}
