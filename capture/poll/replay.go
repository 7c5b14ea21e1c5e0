package poll

import (
	"context"
	"fmt"

	"github.com/jackc/pglogrepl"

	"capture/internal/postgres"
)

// checkReplay returns an error while the state of a standby is older than the state that capture has already shown. After a
// crash, a standby restarts from its last restartpoint, and answers queries before it has replayed everything that it had
// shown before. Another standby at the same address may lag further. The file never goes back to an older state, so capture
// waits until the standby has caught up. A primary is not checked, because its state is the valid one even after a failover.
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

// loadWALPosition returns the replay position of a standby or the insert position of a primary. Everything that a snapshot
// taken before shows is at or below this position. The position is 0 for a standby that has replayed nothing. standby reports
// whether the server is a standby.
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
