package notify

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/capture/source"
	"capture/internal/postgres"
)

// listener is the session that receives the notifications. It reads all the time, because the server keeps a notification
// until every listening session has read it. The server has one queue for all databases, and once this queue is full, commits
// that notify fail.
type listener struct {
	conn          *pgx.Conn
	timeouts      source.Timeouts
	channel       string // channel of the table's triggers
	markerChannel string // channel of the Source's markers; see Source
	keyColumns    int
	pending       *pendingKeys
}

// newListener opens the session, which receives the notifications of all transactions that commit after newListener returns.
func newListener(ctx context.Context, env *source.Env, reads *postgres.ReadClock, table *postgres.Table, markerChannel string, pending *pendingKeys) (*listener, error) {
	conn, err := postgres.Connect(ctx, reads.Attach(env.Database))
	if err != nil {
		return nil, err
	}
	l := &listener{
		conn: conn, timeouts: env.Timeouts, channel: table.Channel(), markerChannel: markerChannel,
		keyColumns: len(table.Key), pending: pending,
	}
	for _, channel := range []string{l.channel, l.markerChannel} {
		if _, err := conn.Exec(ctx, "LISTEN "+postgres.QuoteIdentifier(channel)); err != nil {
			l.close()
			return nil, fmt.Errorf("listen to channel %s: %w", channel, err)
		}
	}
	return l, nil
}

func (l *listener) close() { postgres.CloseNow(l.conn.PgConn()) }

// run receives notifications until ctx ends or the connection fails. While nothing arrives, it pings the server to detect a
// dead connection.
func (l *listener) run(ctx context.Context) error {
	for {
		waiting, cancel := context.WithTimeout(ctx, l.timeouts.Ping)
		n, err := l.conn.WaitForNotification(waiting)
		idle := waiting.Err() != nil
		cancel()
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case n != nil:
			l.handleNotification(n)
		case idle && !l.conn.IsClosed():
			if err := l.ping(ctx); err != nil {
				return err
			}
		case err != nil:
			return fmt.Errorf("listen to channel %s: %w", l.channel, err)
		}
	}
}

func (l *listener) handleNotification(n *pgconn.Notification) {
	switch n.Channel {
	case l.channel:
		l.pending.addNotification(n.Payload, l.keyColumns)
	case l.markerChannel:
		l.pending.ackMarker(n.Payload)
	}
}

func (l *listener) ping(ctx context.Context) error {
	waiting, cancel := context.WithTimeout(ctx, l.timeouts.Idle)
	defer cancel()
	err := l.conn.Ping(waiting)
	if errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil {
		err = fmt.Errorf("%w: %w", postgres.IdleError(l.timeouts.Idle), err)
	}
	if err != nil {
		return fmt.Errorf("listen to channel %s: %w", l.channel, err)
	}
	return nil
}
