package logical

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/postgres"
)

// Times of awaitCommits. The pauses between its queries grow from firstGuardPause to longestGuardPause.
const (
	firstGuardPause   = time.Millisecond
	longestGuardPause = 100 * time.Millisecond
	guardReportAfter  = time.Second // the status reports a wait that has lasted this long
)

// awaitCommits returns once every transaction that the exported snapshot shows as committed has ended for all sessions.
// Until then nobody may read a table with that snapshot.
//
// A commit has three steps. The server writes the commit record to the WAL, marks the transaction as committed in pg_xact,
// and removes the transaction from the list of running transactions. A walsender can decode the record after the first step.
// The snapshot of a new slot may therefore show a transaction as committed before pg_xact does. A scan with this snapshot
// treats the transaction as aborted, and stores that in the row's hint bits. The application's commit is then permanently
// lost for every session. This bug of PostgreSQL affects rows of the catalog as well as rows of the application. It is fixed
// in 15.20 and 19. See "Race conditions in logical decoding" on pgsql-hackers, January 2026.
//
// Calling pg_current_snapshot() is safe, because this function reads no table. awaitCommits imports the exported snapshot only
// for this call, which returns the exported snapshot as text. awaitCommits then compares the exported snapshot with one new
// ordinary snapshot after another. It stops when all transactions that the exported snapshot shows as committed have also ended
// in the newest ordinary snapshot.
func awaitCommits(ctx context.Context, env *source.Env, queries *postgres.QueryConn, snapshotName string) error {
	var exported xidSnapshot
	err := queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		exported, err = readExportedSnapshot(ctx, conn, snapshotName)
		return err
	})
	if err != nil {
		return fmt.Errorf("read the slot's snapshot: %w", err)
	}
	start, pause, reported := time.Now(), firstGuardPause, false
	for {
		var current xidSnapshot
		err := queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			current, err = queryXIDSnapshot(ctx, conn)
			return err
		})
		if err != nil {
			return fmt.Errorf("wait for the commits of the slot's snapshot: %w", err)
		}
		if exported.endedBy(current) {
			return nil
		}
		waited := time.Since(start)
		if waited > env.Timeouts.Idle {
			return &source.ResyncError{Reason: fmt.Sprintf("transactions that the slot's snapshot shows as committed have not ended for %s", waited.Round(time.Second)), Backoff: true, Intact: true}
		}
		if waited > guardReportAfter && !reported {
			reported = true
			why := "transactions that are committing must end first"
			env.Progress.SetBlocked(why)
			env.Logger.Warn("waiting to read the slot's snapshot", "reason", why)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, longestGuardPause)
	}
}

// readExportedSnapshot returns the exported snapshot with this name. It runs no statement that reads a table, because such a
// statement could mark a committed row as aborted (see awaitCommits).
func readExportedSnapshot(ctx context.Context, conn *pgx.Conn, name string) (xidSnapshot, error) {
	tx, err := postgres.Begin(ctx, conn, "ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT "+postgres.QuoteLiteral(name))
	if err != nil {
		return xidSnapshot{}, err
	}
	defer postgres.Rollback(ctx, tx)
	return queryXIDSnapshot(ctx, tx)
}

func queryXIDSnapshot(ctx context.Context, q postgres.Querier) (xidSnapshot, error) {
	var text string
	row := q.QueryRow(ctx, "SELECT pg_catalog.pg_current_snapshot()::pg_catalog.text", pgx.QueryExecModeExec)
	if err := row.Scan(&text); err != nil {
		return xidSnapshot{}, fmt.Errorf("query pg_current_snapshot: %w", err)
	}
	return parseXIDSnapshot(text)
}

// xidSnapshot is a snapshot as pg_current_snapshot() prints it, xmin:xmax:list. Transactions with an ID below xmin have ended.
// Transactions with the ID xmax or a later ID have not ended. Of the transactions from xmin up to xmax, those in the list are
// running and all others have ended.
type xidSnapshot struct {
	xmin, xmax uint64
	running    []uint64
}

func parseXIDSnapshot(text string) (xidSnapshot, error) {
	parts := strings.Split(text, ":")
	if len(parts) != 3 {
		return xidSnapshot{}, fmt.Errorf("parse snapshot %q: want xmin:xmax:list", text)
	}
	var s xidSnapshot
	var err error
	number := func(text string) (n uint64) {
		if err == nil {
			n, err = strconv.ParseUint(text, 10, 64)
		}
		return n
	}
	s.xmin, s.xmax = number(parts[0]), number(parts[1])
	if parts[2] != "" {
		for xid := range strings.SplitSeq(parts[2], ",") {
			s.running = append(s.running, number(xid))
		}
	}
	if err != nil {
		return xidSnapshot{}, fmt.Errorf("parse snapshot %q: %w", text, err)
	}
	return s, nil
}

// endedBy reports whether every transaction that s shows as ended has also ended in newer, which is a later snapshot.
// Transactions below s.xmin had ended for all sessions when s was built, so only transactions from s.xmin up to s.xmax need
// a check.
func (s xidSnapshot) endedBy(newer xidSnapshot) bool {
	if newer.xmax < s.xmax {
		return false
	}
	return !slices.ContainsFunc(newer.running, func(xid uint64) bool {
		return xid >= s.xmin && xid < s.xmax && !slices.Contains(s.running, xid)
	})
}
