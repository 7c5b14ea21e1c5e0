package postgres

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// QueryConn is an ordinary connection for short queries alongside a stream or a copy. It connects on first use, and
// reconnects after a failure. Several goroutines may share it: it runs one call of Do at a time.
type QueryConn struct {
	cfg         *pgx.ConnConfig
	idleTimeout time.Duration

	clock ReadClock

	// lock is a channel with room for one value, and protects the fields below: whoever has sent the value may use them.
	// Unlike with a mutex, Do stops waiting for the lock when its context ends. So capture can stop even if another call of
	// Do still waits for a server that hangs.
	lock   chan struct{}
	conn   *pgx.Conn
	closed bool
}

var errQueryConnClosed = errors.New("the connection for queries is closed")

// NewQueryConn returns a QueryConn to the database of cfg. A call of Do fails if nothing arrives from the server for
// idleTimeout; 0 means [DefaultIdleTimeout].
func NewQueryConn(cfg *pgx.ConnConfig, idleTimeout time.Duration) *QueryConn {
	return &QueryConn{cfg: cfg, idleTimeout: cmp.Or(idleTimeout, DefaultIdleTimeout), lock: make(chan struct{}, 1)}
}

// Do calls f with the connection, and connects first if needed. After Close it returns an error.
func (q *QueryConn) Do(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	select {
	case q.lock <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-q.lock }()
	if q.closed {
		return errQueryConnClosed
	}
	return q.clock.WithIdleTimeout(ctx, q.idleTimeout, func(ctx context.Context) error {
		if q.conn == nil || q.conn.IsClosed() {
			conn, err := Connect(ctx, q.clock.Attach(q.cfg))
			if err != nil {
				return err
			}
			q.conn = conn
		}
		return f(ctx, q.conn)
	})
}

// Take returns the connection for a long use, and connects first if needed. The caller gives it back with [QueryConn.Return].
// Until then, Do uses another connection.
func (q *QueryConn) Take(ctx context.Context) (conn *pgx.Conn, err error) {
	err = q.Do(ctx, func(_ context.Context, c *pgx.Conn) error {
		conn, q.conn = c, nil
		return nil
	})
	return conn, err
}

// Return gives back a connection that Take returned. It ends the connection's transaction, which must be read-only.
func (q *QueryConn) Return(ctx context.Context, conn *pgx.Conn) {
	err := q.clock.WithIdleTimeout(ctx, q.idleTimeout, func(ctx context.Context) error {
		_, err := conn.Exec(ctx, "ROLLBACK", pgx.QueryExecModeSimpleProtocol)
		return err
	})
	q.lock <- struct{}{}
	defer func() { <-q.lock }()
	if err != nil || q.closed || q.conn != nil {
		CloseNow(conn.PgConn())
		return
	}
	q.conn = conn
}

// Reads returns the clock that records when bytes arrive from the server, also on a connection that Take returned.
func (q *QueryConn) Reads() *ReadClock { return &q.clock }

// LastRead returns when data last arrived, or when the last call of Do, Take or Return began, whichever is later.
func (q *QueryConn) LastRead() time.Time { return q.clock.LastRead() }

// Close closes the connection for good. If a call of Do is running, Close waits until the call has returned. Close then
// waits for the server for at most closeTimeout.
func (q *QueryConn) Close() {
	q.lock <- struct{}{}
	defer func() { <-q.lock }()
	q.closed = true
	if q.conn != nil {
		CloseNow(q.conn.PgConn())
		q.conn = nil
	}
}

// closeTimeout limits how long CloseNow waits, because the server may never answer.
const closeTimeout = 200 * time.Millisecond

// CloseNow closes a connection. If a statement was interrupted, pgx sends the server a request to cancel it. CloseNow waits
// until that request is sent, so the statement does not keep running on the server.
func CloseNow(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // an error does not matter: the connection is not used again
	select {
	case <-conn.CleanupDone():
	case <-ctx.Done():
	}
}

// rollbackTimeout is the longest time that Rollback waits, because the server may not answer. It is long, so that the
// connection remains usable if a busy server answers late.
const rollbackTimeout = 30 * time.Second

// Rollback ends a read-only transaction. It ignores errors: if it fails, the connection is broken, and the next use of the
// connection returns an error. If ctx has ended, the caller is stopping, and Rollback waits for a second at most.
func Rollback(ctx context.Context, tx pgx.Tx) {
	limit := rollbackTimeout
	if ctx.Err() != nil {
		ctx, limit = context.WithoutCancel(ctx), time.Second
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	_ = tx.Rollback(ctx)
}
