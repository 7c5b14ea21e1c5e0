package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/postgres"
	"capture/snapshot"
)

// watch looks regularly for what the stream does not show: another shape, and WAL held back.
func (l *logical) watch(ctx context.Context) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	troubled := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := l.side.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			if err := l.sameShape(ctx, conn); err != nil {
				return err
			}
			return l.slotHolds(ctx, conn)
		})
		if errors.Is(err, errNoSlot) {
			err = &source.ResyncError{Reason: err.Error(), Backoff: true}
		}
		anew, problem := (*source.ResyncError)(nil), (*postgres.Problem)(nil)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			if troubled {
				l.env.Progress.SetCondition("checks", "")
			}
			troubled = false
		case errors.As(err, &anew), errors.As(err, &problem) && (problem.TableMissing() || problem.Err == nil):
			return err // the table is not what it was: the source ends
		default:
			// The stream may be well while this connection is not: it will tell by itself.
			if !troubled {
				l.log.Warn("the regular check of the table's definition failed", "error", err)
				l.env.Progress.SetCondition("checks", "the regular check of the table's definition fails: "+err.Error())
			}
			troubled = true
		}
	}
}

var errNoSlot = errors.New("the replication slot is gone")

// slotHolds looks at what the slot holds back: an *source.ResyncError where that is too much, or where the server has taken it
// away. It is errNoSlot where there is no slot.
func (l *logical) slotHolds(ctx context.Context, conn *pgx.Conn) error {
	var retained *int64
	var status string
	err := conn.QueryRow(ctx, `
		SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::bigint, coalesce(wal_status, '')
		FROM pg_catalog.pg_replication_slots WHERE slot_name = $1`, l.slot).Scan(&retained, &status)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errNoSlot
	case err != nil:
		return fmt.Errorf("look at the replication slot: %w", err)
	case status == "lost":
		return &source.ResyncError{Reason: "the server took the replication slot's WAL away (max_slot_wal_keep_size)", Backoff: true}
	case retained == nil:
		return nil // it is being made
	}
	l.env.Progress.SetRetainedWAL(*retained)
	if *retained > l.env.MaxWAL && l.env.MaxWAL > 0 {
		return &source.ResyncError{Reason: fmt.Sprintf("the replication slot held back %d bytes of WAL, more than --max-wal allows (%d)", *retained, l.env.MaxWAL), Backoff: true}
	}
	return nil
}

// countRows compares the number of rows with the table's, regularly, over a connection of its own: it takes long
// for a large table.
func (l *logical) countRows(ctx context.Context, t *snapshot.Table) error {
	tick := time.NewTicker(l.env.Timeouts.RowCount)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := l.compareRows(ctx, t)
		anew := (*source.ResyncError)(nil)
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, source.ErrNotFollowing):
		case errors.As(err, &anew) && !anew.Backoff:
			return err
		default:
			l.log.Info("the rows were not counted", "why", err)
		}
	}
}

// compareRows finds rows too few or too many. Some may come and go while they are counted: only a difference without any
// such change counts.
func (l *logical) compareRows(ctx context.Context, t *snapshot.Table) error {
	var rows int
	for range 3 {
		if err := l.Barrier(ctx); err != nil {
			return err
		}
		before := t.View()
		var err error
		if rows, err = l.count(ctx); err != nil {
			return err
		}
		if err := l.Barrier(ctx); err != nil {
			return err
		}
		if after := t.View(); rows == before.Rows() || after.Version() != before.Version() {
			return nil
		}
	}
	return &source.ResyncError{Reason: fmt.Sprintf("the table has %d rows and feedback.json %d", rows, t.View().Rows())}
}

// count counts the rows, and gives way to who waits for the table.
func (l *logical) count(ctx context.Context) (rows int, err error) {
	var (
		reads postgres.ReadClock
		conn  *pgx.Conn
		tx    pgx.Tx
	)
	err = reads.WithIdleTimeout(ctx, l.env.Timeouts.Idle, func(ctx context.Context) (err error) {
		if conn, err = postgres.Connect(ctx, reads.Attach(l.env.Database)); err == nil {
			tx, err = postgres.Begin(ctx, conn, "READ ONLY")
		}
		return err
	})
	if conn != nil {
		defer postgres.CloseNow(conn.PgConn())
	}
	if err == nil {
		err = tablecopy.NewWatchdog(l.env, &reads, nil).Run(ctx, conn, func(ctx context.Context) error {
			return tx.QueryRow(ctx, "SELECT count(*) FROM "+l.tab.FromClause()).Scan(&rows)
		})
	}
	if err != nil {
		return 0, fmt.Errorf("count the rows: %w", err)
	}
	return rows, nil
}
