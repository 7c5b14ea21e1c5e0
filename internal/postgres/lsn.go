package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// LoadInsertLSN returns the position at which the server writes WAL next: the commits that were visible before the call lie
// below it.
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

// WithoutPageHeader returns the start of the page for a position right behind the header of a WAL page. The header is not a
// record, so a reader that has read every record below the position stops at the page's boundary and never reaches the
// position itself.
func WithoutPageHeader(lsn pglogrepl.LSN) pglogrepl.LSN {
	// XLOG_BLCKSZ, and the longer of the two page headers (access/xlog_internal.h).
	const pageSize, longHeader = 8192, 40
	if offset := lsn % pageSize; offset <= longHeader {
		lsn -= offset
	}
	return lsn
}

// FlushWAL makes the server write its WAL to disk up to lsn. A walsender sends only WAL that is flushed, but records of
// transactions that rolled back or only read (readers prune pages, too) stay in memory until the next commit or checkpoint.
// Taking a transaction ID makes this query's own end a commit record, which the server's WAL writer flushes without
// anybody waiting for it.
func FlushWAL(ctx context.Context, conn *pgx.Conn, lsn pglogrepl.LSN) error {
	var id *int64
	err := Pinned(conn).QueryRow(ctx, `SELECT CASE WHEN pg_catalog.pg_current_wal_flush_lsn() < $1::pg_lsn THEN pg_catalog.txid_current() END`, lsn.String()).Scan(&id)
	if err != nil {
		return fmt.Errorf("flush the server's WAL: %w", err)
	}
	return nil
}

// FormatLSN returns an LSN for people and JSON; "" for 0, which is no position.
func FormatLSN(lsn pglogrepl.LSN) string {
	if lsn == 0 {
		return ""
	}
	return lsn.String()
}
