package logical

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/postgres"
)

const (
	barrierPoll    = 2 * time.Millisecond   // time between checks of the applied position
	requestsEvery  = 16                     // number of checks per request for a keepalive
	firstWALFlush  = 50 * time.Millisecond  // time until the first request to flush the WAL
	walFlushPeriod = 300 * time.Millisecond // time between later requests to flush the WAL
)

// Barrier implements source.Source. It waits until the stream has been applied up to the server's current WAL insert
// position. All commits that were visible before the call are below that position.
//
// There are two reasons why the stream may reach this position late. First, the last WAL records below the position may not
// belong to a commit of the table. Only a keepalive then shows that the server has passed these records, so Barrier requests
// keepalives. Second, a walsender sends only flushed WAL. If the wait takes long, Barrier therefore makes the server flush its
// WAL.
func (s *Source) Barrier(ctx context.Context) error {
	var target pglogrepl.LSN
	err := s.queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		// proposeHorizon also checks whether the table's definition has changed, because the stream does not show all changes of
		// rows that a new definition causes.
		if err := s.proposeHorizon(ctx, conn); err != nil {
			return err
		}
		target, err = postgres.LoadInsertLSN(ctx, conn)
		return err
	})
	if resync := (*source.ResyncError)(nil); errors.As(err, &resync) {
		s.noteDoubt(err)
		s.endStream(err)
		return source.ErrNotFollowing
	}
	if err != nil {
		return s.barrierError(err)
	}
	return s.awaitStream(ctx, target, func() bool { return s.standby.appliedLSN() >= target })
}

// barrierError returns Barrier's error for a query that failed with err. If Follow has ended, this end is the cause of the
// failure, so barrierError returns ErrNotFollowing.
func (s *Source) barrierError(err error) error {
	select {
	case <-s.ended:
		return source.ErrNotFollowing
	default:
		return postgres.Explain(err)
	}
}

// awaitStream waits until done returns true. done must return true soon after the stream has been applied up to target.
func (s *Source) awaitStream(ctx context.Context, target pglogrepl.LSN, done func() bool) error {
	tick := time.NewTicker(barrierPoll)
	defer tick.Stop()
	nextFlush := time.Now().Add(firstWALFlush)
	for i := 0; !done(); i++ {
		if time.Now().After(nextFlush) {
			err := s.queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return postgres.FlushWAL(ctx, conn, target) })
			if err != nil {
				return s.barrierError(err)
			}
			nextFlush = time.Now().Add(walFlushPeriod)
		}
		if i%requestsEvery == 0 {
			if err := s.standby.sendStatus(true, true); err != nil {
				return source.ErrNotFollowing // the connection is broken, which ends Follow
			}
		}
		select {
		case <-s.ended:
			return source.ErrNotFollowing
		case <-ctx.Done():
			return fmt.Errorf("wait for the stream to reach %s: it is at %s: %w", target, s.standby.appliedLSN(), ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}
