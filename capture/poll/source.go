// Package poll follows a table by reading it at intervals, for servers that allow nothing else. It needs only the privilege
// SELECT, and works on standbys and through poolers.
//
// If nothing has changed on the whole server, a read is one short query. Otherwise the server scans the table and returns a
// hash of its row versions. Rows are transferred only if this hash or the table's definition has changed since the last read.
// They are also transferred if no hash can be used, for example because the table is not stored as a heap. If possible, only
// the rows that have changed are transferred; see [tablecopy.Copier.Update].
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

// Source reads the table at intervals.
type Source struct {
	*source.Rounds
	env    *source.Env
	reader *tablecopy.Reader

	// State of the table at the last read. Each text is "" if it is not known.
	serverSnapshot string // result of serverSnapshotQuery, queried before the read
	fingerprint    string // fingerprint of the table's definition
	rowsHash       string // result of rowsHashQuery

	shownLSN pglogrepl.LSN // WAL position at or after the state in the Table; see checkReplay
	readTook time.Duration // duration of the last call of readIfChanged that scanned the table
}

// New returns a Source for one call of Follow.
func New(env *source.Env) *Source {
	return &Source{Rounds: source.NewRounds(), env: env, reader: tablecopy.NewReader(env, "poll")}
}

// Follow implements source.Source. Barrier requests a read that begins after the call. On a standby, that read includes only
// what the standby has replayed.
func (s *Source) Follow(ctx context.Context, t *snapshot.Table) error {
	defer s.End()
	defer s.reader.Close()
	if err := s.reader.Open(ctx); err != nil {
		return err
	}
	if err := s.withdrawHarmful(ctx, s.env.Table); err != nil {
		return err
	}
	s.env.Progress.SetCopying()
	if err := s.loadRows(ctx, t); err != nil {
		return err
	}
	if v := t.View(); v != nil && v.Origin().SystemID == s.reader.Server.SystemID {
		s.shownLSN = v.Position().LSN // checkReplay must refuse older states, because t may come from another standby
	}
	if err := s.readIfChanged(ctx, t); err != nil {
		return err
	}
	s.env.Progress.SetFollowing(&s.reader.Reads)
	s.env.Logger.Info("following", "table", s.reader.Table.Name().String(), "source", "poll", "every", s.env.PollInterval.String())
	return s.loop(ctx, t)
}

// loadRows loads the rows that an earlier run left in feedback.json, if they can be used.
func (s *Source) loadRows(ctx context.Context, t *snapshot.Table) error {
	if !s.env.NeedsRows(t) {
		return nil
	}
	table, err := postgres.LoadTable(ctx, s.reader.Conn, s.env.Table)
	if err != nil {
		return source.WithFileNote(err)
	}
	return s.reader.LoadRows(ctx, t, table)
}

// loop reads the table at each interval and when Barrier requests a read.
func (s *Source) loop(ctx context.Context, t *snapshot.Table) error {
	next := time.NewTimer(s.nextPause())
	defer next.Stop()
	ping := time.NewTicker(s.env.Timeouts.Ping)
	defer ping.Stop()
	for {
		var err error
		select {
		case <-ctx.Done():
			s.reader.ConfirmLast(t)
			return ctx.Err()
		case <-s.reader.ConfirmDue():
			if err := s.reader.Confirm(ctx, t); err != nil {
				return err
			}
			continue
		case <-ping.C: // detects a dead connection before the next read is due
			if err := s.withdrawHarmful(ctx, s.reader.Table.Name()); err != nil {
				return fmt.Errorf("ping the server: %w", err)
			}
			continue
		case r := <-s.Requests():
			err = s.reader.Outlast(ctx, func(ctx context.Context) error { return s.readIfChanged(ctx, t) })
			r <- err
		case <-next.C:
			err = s.reader.Outlast(ctx, func(ctx context.Context) error { return s.readIfChanged(ctx, t) })
		}
		if err != nil {
			return err
		}
		next.Reset(s.nextPause())
	}
}

// restShare is the pause after a read, as a multiple of the read's duration. With a pause of nine times this duration,
// capture reads for at most a tenth of the time, even if the table is large.
const restShare = 9

// nextPause returns the time until the next read.
func (s *Source) nextPause() time.Duration { return max(s.env.PollInterval, restShare*s.readTook) }

func (s *Source) withdrawHarmful(ctx context.Context, table postgres.Name) error {
	ctx, cancel := context.WithTimeout(ctx, s.env.Timeouts.Idle)
	defer cancel()
	return s.env.WithdrawHarmful(ctx, s.reader.Conn, table)
}

// serverSnapshotQuery returns a text that shows whether rows may have changed. If two queries return the same text, no
// transaction that changed a row has ended between them. The query returns no row if the server cannot provide this text.
//
// On a primary, the text contains the current snapshot: xmax, which is above the IDs of all ended transactions, and the list
// of running transactions below xmax. Postgres gives an ID to every transaction that changes a row. When such a transaction
// ends between two queries, it leaves the list or raises xmax. This is also true if the transaction rolls back, was
// prepared, belongs to another session or database, or had to wait for a standby after it wrote its commit record.
//
// After a crash, the server may reuse the IDs of transactions that were lost because of synchronous_commit = off. The text
// therefore also identifies the session, because a session always ends at a crash or a failover.
//
// On a standby, snapshots do not list running transactions. There, the text contains the replay position, which rises with
// each WAL record.
const serverSnapshotQuery = `
	SELECT concat_ws(' ', a.pid, a.backend_start, pg_catalog.pg_postmaster_start_time(),
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'replayed ' || pg_catalog.pg_last_wal_replay_lsn()
			ELSE pg_catalog.pg_current_snapshot()::text END)
	FROM pg_catalog.pg_stat_get_activity(pg_catalog.pg_backend_pid()) a
	WHERE a.backend_start IS NOT NULL
		AND (NOT pg_catalog.pg_is_in_recovery() OR pg_catalog.pg_last_wal_replay_lsn() IS NOT NULL)`

// rowsHashQuery returns a query for a text that identifies the row versions that a snapshot shows. The text contains the number
// of row versions and the sum of their 64-bit hashes. Each hash covers the place of a row version (table, page and slot) and
// its transaction. A row version never changes once the transaction that created it has ended. The place of a row version is
// reused only for a version of another transaction. Therefore, if two snapshots show the same row versions, and the table's
// definition has not changed, they show the same rows.
func rowsHashQuery(table *postgres.Table) string {
	return "SELECT concat_ws(' ', count(*), sum(pg_catalog.hashtextextended(concat_ws(' ', tableoid, ctid, xmin), 0)::numeric)) FROM " + table.FromClause()
}

// readIfChanged advances t to the state that a new snapshot shows. It reads the table only if the table may have changed.
func (s *Source) readIfChanged(ctx context.Context, t *snapshot.Table) error {
	if err := s.reader.Open(ctx); err != nil {
		return err
	}
	// Query the text before the read takes its snapshot. If the next call gets the same text, nothing has changed since this
	// read.
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
	start := time.Now()
	defer func() { s.readTook = time.Since(start) }()
	tx, err := s.reader.Begin(ctx)
	if err != nil {
		return source.WithFileNote(err)
	}
	defer postgres.Rollback(ctx, tx)
	position, _, err := postgres.LoadWALPosition(ctx, tx)
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
		if err := s.reader.Update(ctx, t, "poll", position); err != nil {
			return err
		}
		s.shownLSN = position
	}
	s.serverSnapshot, s.fingerprint, s.rowsHash = serverSnapshot, s.reader.Table.Fingerprint, rowsHash
	if foreign {
		// This server's snapshot does not show whether rows of a partition on another server have changed.
		s.serverSnapshot = ""
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

// loadServerSnapshot returns the result of serverSnapshotQuery, or "" if the query returns no row.
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
