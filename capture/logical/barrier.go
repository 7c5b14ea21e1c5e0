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
	barrierPoll    = 2 * time.Millisecond   // time between looks at the applied position
	requestsEvery  = 16                     // looks between requests for a keepalive
	walFlushPeriod = 300 * time.Millisecond // time between requests to flush the WAL
)

// Barrier implements source.Source. It waits until the stream has been applied up to where the server writes WAL now: the
// commits that were visible before the call lie below that position.
//
// The stream may not get there by itself. The last records below the position may belong to no commit of the table, so
// that only a keepalive shows that the server has passed them: Barrier asks for one. And they may not be flushed yet, while
// a walsender sends only WAL that is: if the wait lasts, Barrier makes the server flush it.
func (s *Source) Barrier(ctx context.Context) error {
	var target pglogrepl.LSN
	err := s.queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		// A change of the definition is not in the stream, so it must be found here for the state to be complete.
		if err := checkCatalog(ctx, conn, s.env, s.table, s.publication); err != nil {
			return err
		}
		target, err = postgres.LoadInsertLSN(ctx, conn)
		return err
	})
	if resync := (*source.ResyncError)(nil); errors.As(err, &resync) {
		s.endStream(err)
		return source.ErrNotFollowing
	}
	if err != nil {
		return s.barrierError(err)
	}
	return s.waitApplied(ctx, target)
}

// barrierError returns the error of Barrier for a query that failed. If Follow has ended, the query failed because of that.
func (s *Source) barrierError(err error) error {
	select {
	case <-s.ended:
		return source.ErrNotFollowing
	default:
		return postgres.Explain(err)
	}
}

// waitApplied waits until the stream has been applied up to target.
func (s *Source) waitApplied(ctx context.Context, target pglogrepl.LSN) error {
	tick := time.NewTicker(barrierPoll)
	defer tick.Stop()
	lastFlush := time.Now()
	for i := 0; s.standby.appliedLSN() < target; i++ {
		if time.Since(lastFlush) > walFlushPeriod {
			err := s.queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return postgres.FlushWAL(ctx, conn, target) })
			if err != nil {
				return s.barrierError(err)
			}
			lastFlush = time.Now()
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
