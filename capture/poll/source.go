// Package poll follows a table by reading it, for servers that allow nothing else: it needs no right but SELECT, and works on
// standbys and through poolers.
//
// A read of an unchanged table costs one short query if nothing has changed in the whole server, and otherwise a scan
// within the server. Only a table that may have changed is copied.
package poll

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/postgres"
	"capture/snapshot"
)

// Source reads the whole table at intervals.
type Source struct {
	*source.Rounds
	env    *source.Env
	reader *tablecopy.Reader

	// The table as it was last read; "" for what is not known.
	serverSnapshot string // see serverSnapshotQuery; taken before the read
	fingerprint    string // of the definition
	rowsHash       string // see rowsHashQuery

	shownLSN pglogrepl.LSN // WAL position at or after the state in the Table; see checkReplay
}

// New returns a Source for one call of Follow.
func New(env *source.Env) *Source {
	return &Source{Rounds: source.NewRounds(), env: env, reader: tablecopy.NewReader(env, "poll")}
}

// Follow implements source.Source. Its Barrier asks for a read that begins after the call; on a standby that includes what
// has been replayed there.
func (s *Source) Follow(ctx context.Context, t *snapshot.Table) error {
	defer s.End()
	defer s.reader.Close()
	if err := s.reader.Open(ctx); err != nil {
		return err
	}
	s.env.Progress.SetCopying()
	if v := t.View(); v != nil && v.Origin().SystemID == s.reader.Server.SystemID {
		s.shownLSN = v.Position().LSN // of an earlier connection, perhaps to another standby
	}
	if err := s.readIfChanged(ctx, t); err != nil {
		return err
	}
	s.env.Progress.SetFollowing(&s.reader.Reads)
	s.env.Logger.Info("following", "table", s.reader.Table.Name().String(), "source", "poll", "every", s.env.PollInterval.String())
	return s.loop(ctx, t)
}

// loop reads the table at each interval and when Barrier asks for it.
func (s *Source) loop(ctx context.Context, t *snapshot.Table) error {
	next := time.NewTimer(s.nextPause())
	defer next.Stop()
	ping := time.NewTicker(s.env.Timeouts.Ping)
	defer ping.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ping.C: // a dead connection is noticed before the next read is due
			if err := s.ping(ctx); err != nil {
				return err
			}
			continue
		case r := <-s.Requests():
			err = s.readIfChanged(ctx, t)
			r <- err
		case <-next.C:
			err = s.readIfChanged(ctx, t)
		}
		if err != nil {
			return err
		}
		next.Reset(s.nextPause())
	}
}

// nextPause returns the time until the next read: the interval, and at least as long as the last copy took, so that reading a
// large table takes no more than half of the time.
func (s *Source) nextPause() time.Duration { return max(s.env.PollInterval, s.reader.CopyDuration) }

func (s *Source) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.env.Timeouts.Idle)
	defer cancel()
	if err := s.reader.Conn.Ping(ctx); err != nil {
		return fmt.Errorf("ping the server: %w", err)
	}
	return nil
}

// serverSnapshotQuery returns a text that is the same at two times only if no transaction has ended in between that any
// snapshot could show. It returns no row if the server has no such text.
//
// On a primary the text is the current snapshot: the list of transactions below xmax that are still running, and xmax, which
// lies above all that have ended. A transaction that ends in between leaves the list or raises xmax. That holds also if it
// was waiting for its commit to reach a standby when the earlier snapshot was taken. (A row version carries the ID of a
// transaction, so a transaction without an ID changed no row.) HOT updates, rolled-back and prepared transactions, other
// sessions and other databases all count. A crash may hand out IDs again that were taken by transactions with
// synchronous_commit off. So the text includes the session, because no session outlives a crash or a failover.
//
// On a standby, snapshots do not list running transactions. The text there is the position up to which WAL has been
// replayed, which rises with each record.
const serverSnapshotQuery = `
	SELECT concat_ws(' ', a.pid, a.backend_start, pg_catalog.pg_postmaster_start_time(),
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'replayed ' || pg_catalog.pg_last_wal_replay_lsn()
			ELSE pg_catalog.pg_current_snapshot()::text END)
	FROM pg_catalog.pg_stat_activity a
	WHERE a.pid = pg_catalog.pg_backend_pid() AND a.backend_start IS NOT NULL
		AND (NOT pg_catalog.pg_is_in_recovery() OR pg_catalog.pg_last_wal_replay_lsn() IS NOT NULL)`

// rowsHashQuery returns a query for a text that identifies the rows that a snapshot shows. A row version at its place (table,
// page and slot) never changes once the transaction that created it has ended, and its place is reused only for a version of
// another transaction. So two snapshots that show the same versions show the same rows, as long as the definition is the
// same, too. The text is the number of versions and the sum of a 64-bit hash of each.
func rowsHashQuery(table *postgres.Table) string {
	return "SELECT concat_ws(' ', count(*), sum(pg_catalog.hashtextextended(concat_ws(' ', tableoid, ctid, xmin), 0)::numeric)) FROM " + table.FromClause()
}

// readIfChanged brings t to the state that a new snapshot shows, and does no more than it has to.
func (s *Source) readIfChanged(ctx context.Context, t *snapshot.Table) error {
	if err := s.reader.Open(ctx); err != nil {
		return err
	}
	// Before the read's snapshot: if the text is the same next time, nothing has changed since then.
	serverSnapshot, err := s.loadServerSnapshot(ctx)
	if err != nil {
		return err
	}
	if serverSnapshot != "" && serverSnapshot == s.serverSnapshot {
		return nil
	}
	if err := s.checkReplay(ctx); err != nil {
		return err
	}
	tx, err := s.reader.Begin(ctx)
	if err != nil {
		return source.WithFileNote(err)
	}
	defer postgres.Rollback(ctx, tx)
	position, _, err := loadWALPosition(ctx, tx)
	if err != nil {
		return err
	}
	foreign, heap, err := postgres.LoadStorage(ctx, tx, s.reader.Table)
	if err != nil {
		return err
	}
	rowsHash := ""
	if heap { // rowsHashQuery relies on how heaps store rows
		if rowsHash, err = s.hashRows(ctx, tx); err != nil {
			return err
		}
	}
	if rowsHash == "" || rowsHash != s.rowsHash || s.reader.Table.Fingerprint != s.fingerprint {
		s.serverSnapshot, s.rowsHash = "", ""
		if err := s.reader.CopyAll(ctx, t, "poll", position); err != nil {
			return err
		}
		s.shownLSN = position
	}
	s.serverSnapshot, s.fingerprint, s.rowsHash = serverSnapshot, s.reader.Table.Fingerprint, rowsHash
	if foreign {
		s.serverSnapshot = "" // the transactions of other servers are in no snapshot of this one
	}
	return nil
}

func (s *Source) hashRows(ctx context.Context, tx pgx.Tx) (hash string, err error) {
	err = s.reader.WithWatchdog(ctx, func(ctx context.Context) error {
		return tx.QueryRow(ctx, rowsHashQuery(s.reader.Table)).Scan(&hash)
	})
	if err != nil {
		return "", fmt.Errorf("look for changes of table %s: %w", s.reader.Table.Name(), err)
	}
	return hash, nil
}

// loadServerSnapshot returns the text of serverSnapshotQuery; "" if the server has none.
func (s *Source) loadServerSnapshot(ctx context.Context) (text string, err error) {
	rows, err := postgres.Pinned(s.reader.Conn).Query(ctx, serverSnapshotQuery)
	if err == nil {
		defer rows.Close()
		if rows.Next() {
			err = rows.Scan(&text)
		}
		rows.Close()
	}
	if err == nil {
		err = rows.Err()
	}
	if err != nil {
		return "", fmt.Errorf("query the server's snapshot: %w", err)
	}
	return text, nil
}
