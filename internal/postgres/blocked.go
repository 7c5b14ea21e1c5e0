package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
)

// FindBlockedSession finds a session that waits for a lock because of one of the given sessions. pids are the process IDs of
// the given sessions. FindBlockedSession returns a text with the process ID and the role of the waiting session, or "" if no
// session waits. Reads and writes of the application can queue up behind the waiting session.
func FindBlockedSession(ctx context.Context, q Querier, pids []int32) (blocked string, err error) {
	err = Pinned(q).QueryRow(ctx, `
		SELECT format('pid %s%s', l.pid, coalesce(' (' || a.usename || ')', ''))
		FROM pg_catalog.pg_locks l LEFT JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
		WHERE NOT l.granted AND $1::int[] && pg_catalog.pg_blocking_pids(l.pid) LIMIT 1`, pids).Scan(&blocked)
	if errors.Is(err, pgx.ErrNoRows) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("query the sessions that a read of the table blocks: %w", Explain(err))
	}
	return blocked, nil
}

// LimitFrozenSession makes the server end the session of q's open transaction if this process is frozen for the given time. A
// frozen process neither reads nor sends anything. LimitFrozenSession returns the process ID of the session.
//
// idle_in_transaction_session_timeout ends a session that waits for its next statement. tcp_user_timeout ends a session that
// sends data which nobody reads; this timeout starts when the receiver has no room for more data. (statement_timeout would end
// a slow read, but not a session that waits to send. Over a Unix socket, nothing ends a session that waits to send.)
func LimitFrozenSession(ctx context.Context, q Querier, frozen time.Duration) (pid int32, err error) {
	// The query asks for the process ID, because the process ID in the protocol may come from a pooler.
	err = q.QueryRow(ctx, `
		SELECT pg_catalog.pg_backend_pid() FROM (SELECT pg_catalog.set_config('idle_in_transaction_session_timeout', $1, true),
			pg_catalog.set_config('tcp_user_timeout', $1, true)) s`, strconv.FormatInt(frozen.Milliseconds(), 10)).Scan(&pid)
	if err != nil {
		return 0, fmt.Errorf("set session timeouts: %w", err)
	}
	return pid, nil
}
