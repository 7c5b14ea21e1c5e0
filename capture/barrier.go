package capture

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

// Barrier implements Source: it waits until the stream has passed the server's present end.
func (l *logical) Barrier(ctx context.Context) error {
	var target pglogrepl.LSN
	err := l.side.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if err := l.sameShape(ctx, conn); err != nil {
			return err
		}
		target, err = postgres.LoadInsertLSN(ctx, conn)
		return err
	})
	if anew := (*source.ResyncError)(nil); errors.As(err, &anew) {
		l.end(err)
		return source.ErrNotFollowing
	}
	if err != nil {
		return postgres.Explain(err)
	}
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for i, nudged := 0, time.Now(); pglogrepl.LSN(l.applied.Load()) < target; i++ {
		if time.Since(nudged) > nudgeAfter {
			err := l.side.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error { return postgres.FlushWAL(ctx, conn, target) })
			if err != nil {
				return postgres.Explain(err)
			}
			nudged = time.Now()
		}
		if i%16 == 0 {
			if err := l.tell(true, true); err != nil {
				return source.ErrNotFollowing
			}
		}
		select {
		case <-l.ended:
			return source.ErrNotFollowing
		case <-ctx.Done():
			return fmt.Errorf("wait for the stream to reach %s: it is at %s: %w", target, pglogrepl.LSN(l.applied.Load()), ctx.Err())
		case <-tick.C:
		}
	}
	return nil
}

// end has the stream end with err.
func (l *logical) end(err error) {
	select {
	case l.broken <- err:
	default:
	}
}

// sameShape says, as an *source.ResyncError, what of the table is not as it was copied.
func (l *logical) sameShape(ctx context.Context, conn *pgx.Conn) error {
	shape, published, err := postgres.CompareCatalog(ctx, conn, l.env.Table, l.tab, l.publication, l.mark)
	if err != nil {
		if p := (*postgres.Problem)(nil); errors.As(err, &p) && p.TableMissing() {
			return fmt.Errorf("%w; feedback.json keeps the last state it had", err)
		}
		return err
	}
	if shape {
		return &source.ResyncError{Reason: fmt.Sprintf("the definition of table %s changed", l.tab.Name())}
	}
	if published {
		return &source.ResyncError{Reason: fmt.Sprintf("publication %s changed", l.publication), Backoff: true}
	}
	return nil
}
