package poll

import (
	"context"
	"fmt"

	"github.com/jackc/pglogrepl"

	"capture/internal/postgres"
)

// checkReplay returns an error while a standby is behind the state that the file holds already. A standby that crashed
// starts again at its last restartpoint, and answers queries before it has replayed everything that it had shown before;
// another standby behind the same address may lag more. The file never goes back: capture waits until the standby has caught
// up. A primary is not checked: after a failover it decides what the state is.
func (s *Source) checkReplay(ctx context.Context) error {
	if s.shownLSN == 0 {
		return nil
	}
	lsn, standby, err := loadWALPosition(ctx, s.reader.Conn)
	if err != nil {
		return err
	}
	if !standby || lsn >= s.shownLSN {
		return nil
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("the standby has replayed WAL up to %s, and feedback.json shows a state of up to %s", lsn, s.shownLSN),
		Reason:  "its state is older than the file, which never goes back",
		Hint:    "wait until the standby has caught up; if it stays at an older state on purpose, restart capture",
	}
}

// loadWALPosition returns the server's position in the WAL, at or after all that a snapshot taken before shows: what a
// standby has replayed, or where a primary writes next. It is 0 for a standby that has replayed nothing.
func loadWALPosition(ctx context.Context, q postgres.Querier) (lsn pglogrepl.LSN, standby bool, err error) {
	var text *string
	err = postgres.Pinned(q).QueryRow(ctx, `
		SELECT CASE WHEN pg_catalog.pg_is_in_recovery() THEN pg_catalog.pg_last_wal_replay_lsn()
			ELSE pg_catalog.pg_current_wal_insert_lsn() END::pg_catalog.text, pg_catalog.pg_is_in_recovery()`).Scan(&text, &standby)
	if err == nil && text != nil {
		lsn, err = pglogrepl.ParseLSN(*text)
	}
	if err != nil {
		return 0, false, fmt.Errorf("query the server's WAL position: %w", err)
	}
	return postgres.WithoutPageHeader(lsn), standby, nil
}
