package capture

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/capture/source"
	"capture/internal/guard"
	"capture/internal/postgres"
)

// attendEvery is how often somebody looks after a long read.
const attendEvery = 500 * time.Millisecond

// attendant looks after a long read of the table from a connection of its own: it ends the read where it is in the
// application's way, and where the server is silent.
type attendant struct {
	env     *source.Env
	conn    *pgx.Conn           // that reads, in an open transaction; others may join in
	traffic *postgres.ReadClock // of these connections
	check   func(context.Context, *pgx.Conn) error

	hurry chan struct{} // closed where the attendant is wanted at once
	met   chan struct{} // closed once it has its connection

	mu   sync.Mutex
	pids []int32 // of the sessions that read
}

// slack is what a reader at a given rate may leave unread, in bytes, before the server sees that it goes on: a system opens
// a connection's window again once a part of its buffer is free.
const slack = 8 << 20

// look has conn, in an open transaction, looked after. Its server ends it once nobody takes what it sends, or nobody
// speaks: a process that is stopped can't give way. (tcp_user_timeout counts from the last byte that the other side had
// room for; statement_timeout would end a copy that is slow, and does not reach a session that waits to send. Over a Unix
// socket nothing does.)
func (a *attendant) look(ctx context.Context, conn *pgx.Conn) error {
	frozen := a.env.Timeouts.FrozenClient
	if rate := a.env.Copy.Rate; rate > 0 {
		frozen += min(time.Duration(slack/float64(rate)*float64(time.Second)), 24*time.Hour)
	}
	var pid int32 // what the protocol says is, behind a pooler, not the server's
	err := conn.QueryRow(ctx, `
		SELECT pg_catalog.pg_backend_pid() FROM (SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', $1, true),
			pg_catalog.set_config('tcp_user_timeout', $1, true)) s`, strconv.FormatInt(frozen.Milliseconds(), 10)).Scan(&pid)
	if err != nil {
		return fmt.Errorf("ask for the session: %w", err)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.pids = append(a.pids, pid)
	return nil
}

func (a *attendant) sessions() []int32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.pids)
}

// run reads. A read that lasts less than attendEvery costs no second connection.
func (a *attendant) run(ctx context.Context, read func(context.Context) error) error {
	if err := a.look(ctx, a.conn); err != nil {
		return err
	}
	a.hurry, a.met = make(chan struct{}), make(chan struct{})
	return guard.RunWatched(ctx, a.env.Logger, "look after a copy", a.watch, read)
}

// watch returns why the read must end, or nil once it has ended.
func (a *attendant) watch(ctx context.Context) error {
	beside := postgres.NewQueryConn(a.env.Database, a.env.Timeouts.Idle)
	defer beside.Close()
	tick := time.NewTicker(attendEvery)
	defer tick.Stop()
	answered, hurry, met := time.Now(), a.hurry, false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-hurry:
			hurry = nil
		case <-tick.C:
		}
		err := beside.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			if err := blocks(ctx, conn, a.sessions()); err != nil || a.check == nil {
				return err
			}
			return a.check(ctx, conn)
		})
		anew, server, broken := (*source.ResyncError)(nil), (*pgconn.PgError)(nil), (*guard.PanicError)(nil)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &anew), errors.As(err, &broken):
			return err
		case err == nil, errors.As(err, &server):
			answered = time.Now()
			if !met {
				met = true
				close(a.met)
			}
		}
		if last := a.traffic.LastRead(); last.After(answered) {
			answered = last
		}
		if quiet := time.Since(answered); quiet > a.env.Timeouts.Idle {
			return postgres.IdleError(quiet)
		}
	}
}

// blocks says, as an *source.ResyncError, that a session waits for a lock that one of the sessions pids holds. Those who wait behind that
// one in turn are the application's reads and writes.
func blocks(ctx context.Context, conn *pgx.Conn, pids []int32) error {
	var who string
	err := conn.QueryRow(ctx, `
		SELECT format('pid %s%s', l.pid, coalesce(' (' || a.usename || ')', ''))
		FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
		WHERE NOT l.granted AND $1::int[] && pg_catalog.pg_blocking_pids(l.pid) LIMIT 1`, pids).Scan(&who)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("ask who waits for the copy: %w", postgres.Explain(err))
	}
	return &source.ResyncError{Reason: "the copy gave way to a session that waits for the table: " + who, Backoff: true}
}
