package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/postgres"
)

// attendEvery is how often somebody looks after a long read.
const attendEvery = 500 * time.Millisecond

// attendant looks after a long read of the table from a connection of its own: it ends the read where it is in the
// application's way, and where the server is silent.
type attendant struct {
	cfg     Config
	conn    *pgx.Conn // that reads, in an open transaction
	traffic *traffic  // of that connection
	check   func(context.Context, *pgx.Conn) error
}

// run reads. A read that lasts less than attendEvery costs no second connection.
func (a *attendant) run(ctx context.Context, read func(context.Context) error) error {
	var pid int32 // what the protocol says is, behind a pooler, not the server's
	if err := a.conn.QueryRow(ctx, "SELECT pg_catalog.pg_backend_pid()").Scan(&pid); err != nil {
		return fmt.Errorf("ask for the session: %w", err)
	}
	reading, end := context.WithCancelCause(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		if err := guarded(a.cfg.Logger, "look after a copy", func() error { return a.watch(reading, pid) }); err != nil {
			end(err)
		}
	}()
	err := read(reading)
	end(nil)
	<-watched
	if cause := context.Cause(reading); err != nil && ctx.Err() == nil && !errors.Is(cause, context.Canceled) {
		return cause
	}
	return err
}

// watch returns why the read must end, or nil once it has ended.
func (a *attendant) watch(ctx context.Context, pid int32) error {
	beside := &side{cfg: a.cfg.Database, silence: a.cfg.bounds.silence}
	defer beside.close()
	tick := time.NewTicker(attendEvery)
	defer tick.Stop()
	answered := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := beside.ask(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			if err := blocks(ctx, conn, pid); err != nil || a.check == nil {
				return err
			}
			return a.check(ctx, conn)
		})
		anew, server, broken := (*anewError)(nil), (*pgconn.PgError)(nil), (*panicError)(nil)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &anew), errors.As(err, &broken):
			return err
		case err == nil, errors.As(err, &server):
			answered = time.Now()
		}
		if last := a.traffic.time(); last.After(answered) {
			answered = last
		}
		if quiet := time.Since(answered); quiet > a.cfg.bounds.silence {
			return silentError(quiet)
		}
	}
}

// blocks says, as an *anewError, that a session waits for a lock that the session pid holds. Those who wait behind that
// one in turn are the application's reads and writes.
func blocks(ctx context.Context, conn *pgx.Conn, pid int32) error {
	var who string
	err := conn.QueryRow(ctx, `
		SELECT format('pid %s%s', l.pid, coalesce(' (' || a.usename || ')', ''))
		FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
		WHERE NOT l.granted AND $1::int = ANY (pg_catalog.pg_blocking_pids(l.pid)) LIMIT 1`, pid).Scan(&who)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return nil
	case err != nil:
		return fmt.Errorf("ask who waits for the copy: %w", postgres.Explain(err))
	}
	return &anewError{why: "the copy gave way to a session that waits for the table: " + who, again: true}
}

func silentError(quiet time.Duration) error {
	return fmt.Errorf("no word from the server for %s: the network or the server hangs", quiet.Round(time.Second))
}
