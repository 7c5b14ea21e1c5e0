package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// LoadInsertLSN returns the position at which the server writes WAL next. The WAL of every commit that was visible before
// the call is below it.
func LoadInsertLSN(ctx context.Context, conn *pgx.Conn) (pglogrepl.LSN, error) {
	var text string
	if err := Pinned(conn).QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_insert_lsn()::text").Scan(&text); err != nil {
		return 0, fmt.Errorf("query the WAL insert position: %w", err)
	}
	lsn, err := pglogrepl.ParseLSN(text)
	if err != nil {
		return 0, fmt.Errorf("query the WAL insert position: %w", err)
	}
	return WithoutPageHeader(lsn), nil
}

// walPositionSQL is an expression for the replay position of a standby or the insert position of a primary, as text.
const walPositionSQL = `CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
			ELSE pg_catalog.pg_current_wal_insert_lsn() END::pg_catalog.text`

// LoadWALPosition returns the replay position of a standby or the insert position of a primary. Everything that earlier
// snapshots show is at or below this position. The position is 0 for a standby that has replayed nothing. standby reports
// whether the server is a standby.
func LoadWALPosition(ctx context.Context, q Querier) (lsn pglogrepl.LSN, standby bool, err error) {
	var text *string
	err = Pinned(q).QueryRow(ctx, `
		SELECT `+walPositionSQL+`, pg_catalog.pg_is_in_recovery()`).Scan(&text, &standby)
	if err == nil && text != nil {
		lsn, err = pglogrepl.ParseLSN(*text)
	}
	if err != nil {
		return 0, false, fmt.Errorf("query the server's WAL position: %w", err)
	}
	return WithoutPageHeader(lsn), standby, nil
}

// WithoutPageHeader returns lsn. If lsn is inside the header of a WAL page or directly after it, it returns the start of the
// page instead. A header is not a record, so a reader of all records below such a position stops at the page boundary and
// never reaches the position itself.
func WithoutPageHeader(lsn pglogrepl.LSN) pglogrepl.LSN {
	// pageSize is XLOG_BLCKSZ. longHeader is the longer of the two page headers (access/xlog_internal.h).
	const pageSize, longHeader = 8192, 40
	if offset := lsn % pageSize; offset <= longHeader {
		lsn -= offset
	}
	return lsn
}

// FlushWAL makes the server flush its WAL up to lsn soon, and does not wait for that. A walsender sends only flushed WAL.
// But records of transactions that rolled back or only read (a read may prune pages) stay in memory until the next commit or
// checkpoint. So the query acquires a transaction ID. It then ends with a commit record, which the server's WAL writer
// flushes in the background.
func FlushWAL(ctx context.Context, conn *pgx.Conn, lsn pglogrepl.LSN) error {
	var id *int64
	err := Pinned(conn).QueryRow(ctx, `SELECT CASE WHEN pg_catalog.pg_current_wal_flush_lsn() < $1::pg_lsn THEN pg_catalog.txid_current() END`, lsn.String()).Scan(&id)
	if err != nil {
		return fmt.Errorf("flush the server's WAL: %w", err)
	}
	return nil
}

// FormatLSN returns lsn as text for messages and JSON, or "" for 0, which is no position.
func FormatLSN(lsn pglogrepl.LSN) string {
	if lsn == 0 {
		return ""
	}
	return lsn.String()
}
