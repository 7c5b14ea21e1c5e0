package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
)

// LoadInsertLSN returns the position at which the server writes WAL next. The WAL of every commit that was visible before the
// call is below this position.
func LoadInsertLSN(ctx context.Context, conn *pgx.Conn) (lsn pglogrepl.LSN, err error) {
	var text string
	err = Pinned(conn).QueryRow(ctx, "SELECT pg_catalog.pg_current_wal_insert_lsn()::pg_catalog.text"+walSizesSQL).Scan(&text)
	if err == nil {
		lsn, err = parseWALPosition(text)
	}
	if err != nil {
		return 0, fmt.Errorf("query the WAL insert position: %w", err)
	}
	return lsn, nil
}

// walSizesSQL appends the sizes of WAL pages and WAL segments to an LSN, for parseWALPosition.
const walSizesSQL = ` || ' ' || pg_catalog.current_setting('wal_block_size') ||
			' ' || pg_catalog.pg_size_bytes(pg_catalog.current_setting('wal_segment_size'))`

// walPositionSQL is an expression for the replay position of a standby or the insert position of a primary, as text for
// parseWALPosition. The value is null on a standby that has replayed nothing.
const walPositionSQL = `CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
			ELSE pg_catalog.pg_current_wal_insert_lsn() END::pg_catalog.text` + walSizesSQL

// LoadWALPosition returns the replay position of a standby or the insert position of a primary, and whether the server is a
// standby. Everything that is visible to a snapshot taken before the call is at or below this position. The position is 0
// for a standby that has replayed nothing.
func LoadWALPosition(ctx context.Context, q Querier) (lsn pglogrepl.LSN, standby bool, err error) {
	var text *string
	err = Pinned(q).QueryRow(ctx, `
		SELECT `+walPositionSQL+`, pg_catalog.pg_is_in_recovery()`).Scan(&text, &standby)
	if err == nil && text != nil {
		lsn, err = parseWALPosition(*text)
	}
	if err != nil {
		return 0, false, fmt.Errorf("query the server's WAL position: %w", err)
	}
	return lsn, standby, nil
}

// parseWALPosition parses an LSN that is followed by the sizes of WAL pages and WAL segments in bytes, and returns the LSN. If
// the LSN is inside the header of a page or directly after it, parseWALPosition returns the start of the page instead. A header
// is not part of a record. So a reader that has read all records below the LSN is at the start of the page, and never reaches
// the LSN itself.
//
// The first page of a segment has a longer header than the other pages, and parseWALPosition needs the sizes to find out
// which header the page has. If it assumed the longer header on every page, it could return a position that is too low: on a
// page with the shorter header, a record can end where the longer header would still be.
func parseWALPosition(text string) (pglogrepl.LSN, error) {
	var position string
	var page, segment pglogrepl.LSN
	if _, err := fmt.Sscanf(text, "%s %d %d", &position, &page, &segment); err != nil || page == 0 || segment == 0 {
		return 0, fmt.Errorf("unexpected WAL position %.60q", text)
	}
	lsn, err := pglogrepl.ParseLSN(position)
	if err != nil {
		return 0, err
	}
	header := pglogrepl.LSN(24) // SizeOfXLogShortPHD in access/xlog_internal.h
	if lsn%segment < page {
		header = 40 // SizeOfXLogLongPHD
	}
	if offset := lsn % page; offset <= header {
		lsn -= offset
	}
	return lsn, nil
}

// FlushWAL makes the server flush its WAL up to lsn soon, and does not wait for the flush. A walsender sends only flushed WAL,
// but the last records may stay in memory until the server has a reason to flush them, such as a commit. These records can
// belong to an open transaction, even to one that only reads, because a read may prune pages. To give the server a reason, the
// query acquires a transaction ID. The query's transaction then ends with a commit record, which the server's WAL writer
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
