package source

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// checkInterval is the usual time between two regular checks of a source. The checks concern the catalog, the publication, the
// triggers, and the WAL that a slot retains.
const checkInterval = 2 * time.Second

// CheckLoop calls check once per [Timeouts.Check] until ctx ends. If check returns an error that must end the source,
// CheckLoop returns this error: a *ResyncError, or a problem with the table or the server. Any other error concerns only the
// connection over which the check runs. CheckLoop reports it as a condition until check succeeds again. The connection that
// delivers the changes reports its own errors.
func (e *Env) CheckLoop(ctx context.Context, check func(context.Context) error) error {
	tick := time.NewTicker(e.Timeouts.Check)
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
			if err = postgres.Explain(err); !failing {
				e.Logger.Warn("regular check of the table failed", "error", err)
				e.Progress.SetCondition(condition, "the regular check of the table fails: "+err.Error())
			}
			failing = true
		}
	}
}

// PublicationCondition is the name of the condition for a publication that makes the application's writes fail and that capture
// cannot drop.
const PublicationCondition = "publication"

// WithdrawHarmful drops capture's publications that make the application's UPDATE and DELETE fail; see
// [postgres.WithdrawHarmful]. Each source calls it regularly, because an earlier run with another source may have left a
// publication. If capture cannot drop a publication, WithdrawHarmful sets PublicationCondition to a text with the statement
// that drops it. conn must not be in a transaction.
func (e *Env) WithdrawHarmful(ctx context.Context, conn *pgx.Conn, table postgres.Name) error {
	dropped, err := postgres.WithdrawHarmful(ctx, conn, table)
	for _, name := range dropped {
		e.Logger.Warn("publication withdrawn", "publication", name, "reason", "a table in it has no usable replica identity, so its UPDATE and DELETE failed")
	}
	text, problem := "", (*postgres.Problem)(nil)
	switch {
	case errors.As(err, &problem) && problem.Err == nil:
		text = problem.Error()
	case err != nil:
		return err
	}
	if e.Progress.SetCondition(PublicationCondition, text) && text != "" && text != e.Publication {
		e.Logger.Error("publication makes writes fail", "error", problem)
	}
	return nil
}

// endsSource reports whether err concerns the table or the server, and not only a connection.
func endsSource(err error) bool {
	resync, problem := (*ResyncError)(nil), (*postgres.Problem)(nil)
	return errors.As(err, &resync) || errors.As(err, &problem) && (problem.TableMissing() || problem.Err == nil)
}

// WithFileNote adds a note about the file to the error for a missing table. It returns any other error unchanged.
func WithFileNote(err error) error {
	if problem := (*postgres.Problem)(nil); errors.As(err, &problem) && problem.TableMissing() {
		return fmt.Errorf("%w; feedback.json keeps the last state it had", err)
	}
	return err
}
