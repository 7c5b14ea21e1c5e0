package tablecopy

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
	"capture/snapshot"
)

// If synchronous_commit is off, an ordinary snapshot shows commits before they are durable. A crash may undo these commits, and
// the server then gives their transaction IDs to other transactions. A Reader therefore sets the horizon of its rows only when
// all WAL that was written before the end of the read is flushed. The server must confirm the flush over the session that read
// the rows: as long as that session exists, the server has not crashed.
//
// A standby shows only changes whose WAL it has flushed. After a crash, it may show an earlier state for some time.
// [Copier.Update] detects this by the position up to which the standby has replayed the WAL.

// These constants limit the wait until the rows of a read are durable. The server's WAL writer flushes asynchronous commits
// within three times wal_writer_delay, by default within 600 ms. WAL that no commit follows may remain in memory until the
// next checkpoint, so the wait has a limit.
const (
	firstConfirmPause   = 100 * time.Millisecond // pause before the second attempt to confirm rows; later pauses are longer
	longestConfirmPause = 2 * time.Second
	longestConfirm      = time.Second // longest wait for a confirmation before another read, or behind a connection pooler
)

// Update brings t to the state of the table that the transaction opened by Begin sees, and commits it as t's next View. If
// the horizon of t's rows cannot be used, or if a copy is faster, it copies the whole table. Otherwise, it transfers only
// what has changed. cause is the cause of the read, for the log. position is the View's WAL position, or 0 if it is unknown.
// The View has no horizon until Confirm has set it.
func (r *Reader) Update(ctx context.Context, t *snapshot.Table, cause string, position pglogrepl.LSN) error {
	if err := r.awaitConfirmed(ctx, t, longestConfirm); err != nil {
		return err
	}
	r.read = nil
	r.setUnconfirmed(nil)
	c := NewCopier(r.env, r.Conn, &r.Reads, r.Table, r.Server, nil)
	h, err := c.Update(ctx, t, originOf(r.name, r.Server), snapshot.Position{LSN: position}, "cause", cause)
	if err != nil {
		return err
	}
	r.read = h
	r.setUnconfirmed(h)
	if !r.Server.Pooled {
		return r.Confirm(ctx, t)
	}
	err = r.awaitConfirmed(ctx, t, longestConfirm)
	r.unconfirmed = nil // no later confirmation, because behind a pooler, the next transaction may run in another session
	return err
}

// ConfirmDue returns a channel that receives a value when the next call of Confirm is due. The channel is nil if nothing has to be
// confirmed.
func (r *Reader) ConfirmDue() <-chan time.Time {
	if r.unconfirmed == nil {
		return nil
	}
	return time.After(time.Until(r.confirmAt))
}

// Confirm sets the horizon of t's rows if they are durable on the server. If ctx ends, Confirm may continue for up to
// Timeouts.Stop; see Outlast.
func (r *Reader) Confirm(ctx context.Context, t *snapshot.Table) error {
	return r.Outlast(ctx, func(ctx context.Context) error { return r.confirm(ctx, t) })
}

// Outlast calls f with a context that is canceled only when Timeouts.Stop has passed since the end of ctx. A
// short query can therefore finish even if the source is stopped in the meantime. Interrupting the query would close the
// connection, and only the session of this connection can confirm the last rows that were read.
func (r *Reader) Outlast(ctx context.Context, f func(context.Context) error) error {
	querying, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	defer context.AfterFunc(ctx, func() { time.AfterFunc(r.env.Timeouts.Stop, cancel) })()
	return f(querying)
}

func (r *Reader) confirm(ctx context.Context, t *snapshot.Table) error {
	if r.unconfirmed == nil {
		return nil
	}
	err := r.withIdleTimeout(ctx, func(ctx context.Context) error {
		durable, err := loadDurableLSN(ctx, r.Conn)
		if err == nil && durable >= r.unconfirmed.LSN {
			t.SetHorizon(r.unconfirmed)
			r.unconfirmed = nil
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("query how much WAL the server has flushed: %w", err)
	}
	r.confirmAt = time.Now().Add(r.confirmPause)
	r.confirmPause = min(2*r.confirmPause, longestConfirmPause)
	return nil
}

// setUnconfirmed sets the horizon that the last View will get once its rows are durable. h is nil if the View gets no horizon.
func (r *Reader) setUnconfirmed(h *snapshot.Horizon) {
	r.unconfirmed, r.confirmPause = h, firstConfirmPause
}

// awaitConfirmed calls confirm until the last View has its horizon, or until the time limit has passed.
func (r *Reader) awaitConfirmed(ctx context.Context, t *snapshot.Table, limit time.Duration) error {
	for start := time.Now(); ; {
		if err := r.confirm(ctx, t); err != nil || r.unconfirmed == nil || time.Since(start) > limit {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(firstConfirmPause / 5):
		}
	}
}

// ConfirmLast is called when the source stops. It confirms the last rows that were read. If the rows are not durable yet, it
// makes the server flush its WAL. If they are not durable within Timeouts.Stop, the View has no horizon, and the next run
// copies the table.
func (r *Reader) ConfirmLast(t *snapshot.Table) {
	if r.Conn == nil || r.Conn.IsClosed() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), r.env.Timeouts.Stop)
	defer cancel()
	err := r.confirm(ctx, t)
	if err == nil && r.unconfirmed != nil {
		if err = postgres.FlushWAL(ctx, r.Conn, r.unconfirmed.LSN); err == nil {
			err = r.awaitConfirmed(ctx, t, r.env.Timeouts.Stop)
		}
	}
	if err != nil {
		r.env.Logger.Debug("the last rows are not known to be durable", "error", err)
	}
}

// loadDurableLSN returns the position up to which the WAL is durable on the server.
func loadDurableLSN(ctx context.Context, conn *pgx.Conn) (pglogrepl.LSN, error) {
	var text string
	err := postgres.Pinned(conn).QueryRow(ctx, `
		SELECT COALESCE(CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
			ELSE pg_catalog.pg_current_wal_flush_lsn() END::pg_catalog.text, '0/0')`).Scan(&text)
	if err != nil {
		return 0, err
	}
	return pglogrepl.ParseLSN(text)
}

// commitRows commits rows that were read by their keys. position is a WAL position after everything that these rows show.
// The new horizon keeps the transaction ID of the last read of the whole table. Therefore the next resync also transfers the
// changes that capture may have missed since that read. The new horizon is set once the rows are durable.
func (r *Reader) commitRows(ctx context.Context, t *snapshot.Table, position pglogrepl.LSN) error {
	t.SetHorizon(nil) // before Commit, because the new View must not have an unconfirmed horizon
	r.setUnconfirmed(nil)
	if err := t.Commit(snapshot.Position{LSN: position}); err != nil {
		return fmt.Errorf("commit to memory: %w", err)
	}
	if r.read == nil {
		return nil
	}
	h := *r.read
	h.LSN = position
	r.setUnconfirmed(&h)
	return r.Confirm(ctx, t)
}
