package capture

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/postgres"
)

// side is the ordinary connection beside a stream, for questions. One question at a time.
type side struct {
	cfg     *pgx.ConnConfig
	silence time.Duration // after which the server is taken for dead; zero for the usual

	mu      sync.Mutex
	traffic traffic
	conn    *pgx.Conn
}

// ask runs f on the connection, which it opens where there is none (any more).
func (s *side) ask(ctx context.Context, f func(context.Context, *pgx.Conn) error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.traffic.bound(ctx, bounds{silence: s.silence}.orUsual().silence, func(ctx context.Context) error {
		if s.conn == nil || s.conn.IsClosed() {
			conn, err := postgres.Connect(ctx, s.traffic.watch(s.cfg))
			if err != nil {
				return err
			}
			s.conn = conn
		}
		return f(ctx, s.conn)
	})
}

// close ends the connection at once.
func (s *side) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn != nil {
		closeConn(s.conn)
		s.conn = nil
	}
}

// closeTimeout is how long a connection may take to end: its server may not answer.
const closeTimeout = 200 * time.Millisecond

func closeConn(conn *pgx.Conn) { hangUp(conn.PgConn()) }

// hangUp ends a connection. A statement that was cut short is cancelled, so that it does not go on at the server: this
// waits until that is said.
func hangUp(conn *pgconn.PgConn) {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	_ = conn.Close(ctx) // it is of no more use either way
	select {
	case <-conn.CleanupDone():
	case <-ctx.Done():
	}
}

// insertPosition is where the server writes WAL next: all that was committed before lies below.
func insertPosition(ctx context.Context, conn *pgx.Conn) (pglogrepl.LSN, error) {
	var text string
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		return 0, fmt.Errorf("ask for the server's position: %w", err)
	}
	lsn, err := pglogrepl.ParseLSN(text)
	if err != nil {
		return 0, fmt.Errorf("ask for the server's position: %w", err)
	}
	return withoutPageHeader(lsn), nil
}

// withoutPageHeader returns the page's boundary for a position right behind a WAL page's header. The header is no record:
// whoever has read up to the boundary has read all below the position.
func withoutPageHeader(lsn pglogrepl.LSN) pglogrepl.LSN {
	const page, header = 8192, 40
	if at := lsn % page; at <= header {
		lsn -= at
	}
	return lsn
}

// flushWAL has the server's WAL writer write its WAL out up to lsn. What a transaction left in it that failed, or only read
// (pages are tidied by readers, too), would stay in memory and out of the stream until the next commit or checkpoint. A
// transaction number of our own makes a commit that waits for nobody.
func flushWAL(ctx context.Context, conn *pgx.Conn, lsn pglogrepl.LSN) error {
	var id *int64
	err := conn.QueryRow(ctx, `SELECT CASE WHEN pg_catalog.pg_current_wal_flush_lsn() < $1::pg_lsn THEN pg_catalog.txid_current() END`, lsn.String()).Scan(&id)
	if err != nil {
		return fmt.Errorf("have the server write its WAL: %w", err)
	}
	return nil
}
