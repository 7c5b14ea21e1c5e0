package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

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
		err := l.side.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			if err := l.sameShape(ctx, conn); err != nil {
				return err
			}
			return l.slotHolds(ctx, conn)
		})
		if errors.Is(err, errNoSlot) {
			err = &anewError{why: err.Error(), again: true}
		}
		anew, problem := (*anewError)(nil), (*postgres.Problem)(nil)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			if troubled {
				l.state.note("checks", "")
			}
			troubled = false
		case errors.As(err, &anew), errors.As(err, &problem) && (problem.TableMissing() || problem.Err == nil):
			return err // the table is not what it was: the source ends
		default:
			// The stream may be well while this connection is not: it will tell by itself.
			if !troubled {
				l.log.Warn("the regular check of the table's definition failed", "error", err)
				l.state.note("checks", "the regular check of the table's definition fails: "+err.Error())
			}
			troubled = true
		}
	}
}

var errNoSlot = errors.New("the replication slot is gone")

// slotHolds looks at what the slot holds back: an *anewError where that is too much, or where the server has taken it
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
		return &anewError{why: "the server took the replication slot's WAL away (max_slot_wal_keep_size)", again: true}
	case retained == nil:
		return nil // it is being made
	}
	l.state.update(func(st *Status) { st.RetainedWAL = *retained })
	if *retained > l.d.cfg.MaxWAL && l.d.cfg.MaxWAL > 0 {
		return &anewError{why: fmt.Sprintf("the replication slot held back %d bytes of WAL, more than --max-wal allows (%d)", *retained, l.d.cfg.MaxWAL), again: true}
	}
	return nil
}

// countRows compares the number of rows with the table's, regularly, over a connection of its own: it takes long
// for a large table.
func (l *logical) countRows(ctx context.Context, t *snapshot.Table) error {
	tick := time.NewTicker(l.d.cfg.bounds.count)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := l.compareRows(ctx, t)
		anew := (*anewError)(nil)
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, errNotFollowing):
		case errors.As(err, &anew) && !anew.again:
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
	return &anewError{why: fmt.Sprintf("the table has %d rows and feedback.json %d", rows, t.View().Rows())}
}

// count counts the rows, and gives way to who waits for the table.
func (l *logical) count(ctx context.Context) (rows int, err error) {
	a := &attendant{cfg: l.d.cfg, traffic: &traffic{}}
	var tx pgx.Tx
	err = a.traffic.bound(ctx, l.d.cfg.bounds.silence, func(ctx context.Context) error {
		if a.conn, err = postgres.Connect(ctx, a.traffic.watch(l.cfg)); err == nil {
			tx, err = postgres.Begin(ctx, a.conn, "READ ONLY")
		}
		return err
	})
	if a.conn != nil {
		defer closeConn(a.conn)
	}
	if err == nil {
		err = a.run(ctx, func(ctx context.Context) error {
			return tx.QueryRow(ctx, "SELECT count(*) FROM "+l.tab.FromClause()).Scan(&rows)
		})
	}
	if err != nil {
		return 0, fmt.Errorf("count the rows: %w", err)
	}
	return rows, nil
}
