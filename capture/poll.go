package capture

import (
	"context"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pglogrepl"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/postgres"
	"capture/snapshot"
)

// pollInterval is Config.PollInterval where that says nothing.
const pollInterval = time.Minute

// poll reads the whole table regularly, unless it is certain that nothing has changed. It needs no right but SELECT, and
// works on standbys and through poolers.
type poll struct {
	env    *source.Env
	log    hclog.Logger
	reader *tablecopy.Reader

	mark  string // of the server, before the last read: see markQuery; "" where it says nothing
	shape string // fingerprint of the table as last read
	rows  string // identity of the rows as last read: see identityQuery

	shown pglogrepl.LSN // WAL position at or after the state in the Table; see checkReplay

	*source.Rounds
}

func newPoll(env *source.Env) *poll {
	return &poll{
		env: env, log: env.Logger, reader: tablecopy.NewReader(env, "poll"),
		Rounds: source.NewRounds(),
	}
}

// Follow implements Source.
func (p *poll) Follow(ctx context.Context, t *snapshot.Table) error {
	defer p.End()
	defer p.reader.Close()
	if err := p.reader.Open(ctx); err != nil {
		return err
	}
	p.env.Progress.SetCopying()
	if v := t.View(); v != nil && v.Origin().SystemID == p.reader.Server.SystemID {
		p.shown = v.Position().LSN // of an earlier connection, perhaps to another standby
	}
	if err := p.read(ctx, t); err != nil {
		return err
	}
	interval := p.env.PollInterval
	p.env.Progress.SetFollowing(&p.reader.Reads)
	p.log.Info("following", "table", p.reader.Table.Name().String(), "source", "poll", "every", interval.String())
	next := time.NewTimer(p.rest(interval))
	defer next.Stop()
	ping := time.NewTicker(p.env.Timeouts.Ping)
	defer ping.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ping.C: // so that a dead line is noticed before the next read is due
			if err := p.ping(ctx); err != nil {
				return err
			}
		case r := <-p.Requests():
			err := p.read(ctx, t)
			if r <- err; err != nil {
				return err
			}
			next.Reset(p.rest(interval))
		case <-next.C:
			if err := p.read(ctx, t); err != nil {
				return err
			}
			next.Reset(p.rest(interval))
		}
	}
}

// rest is the pause after a read: the interval, and for a table that takes long to read at least as long as that took.
func (p *poll) rest(interval time.Duration) time.Duration {
	return max(interval, p.reader.CopyDuration)
}

func (p *poll) ping(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.env.Timeouts.Idle)
	defer cancel()
	if err := p.reader.Conn.Ping(ctx); err != nil {
		return fmt.Errorf("ask the server for a sign of life: %w", err)
	}
	return nil
}

// markQuery gives a text that stays the same, between two times that it is asked, only where no transaction has ended in
// between that any snapshot could show.
//
// On a primary that is the current snapshot: which transactions below xmax are still running, and xmax, which is above
// all that have ended. One that ends in between leaves the list or raises xmax, also where it was waiting for its commit
// to reach a standby while the last snapshot was taken. (Row versions carry the number of a transaction, so that those
// without a number changed nothing.) Row updates within a page, rolled-back and prepared transactions, other sessions and
// other databases all count. A crash may take numbers back which a transaction without synchronous commit had: the
// session is part of the text, and no session outlives a crash or a failover.
//
// On a standby snapshots list no running transactions, so that there it is the position up to which WAL was replayed,
// after each record of which that position rises.
const markQuery = `
	SELECT concat_ws(' ', a.pid, a.backend_start, pg_catalog.pg_postmaster_start_time(),
		CASE WHEN pg_catalog.pg_is_in_recovery() THEN 'replayed ' || pg_catalog.pg_last_wal_replay_lsn()
			ELSE pg_catalog.pg_current_snapshot()::text END)
	FROM pg_catalog.pg_stat_activity a
	WHERE a.pid = pg_catalog.pg_backend_pid() AND a.backend_start IS NOT NULL
		AND (NOT pg_catalog.pg_is_in_recovery() OR pg_catalog.pg_last_wal_replay_lsn() IS NOT NULL)`

// identityQuery gives a text for the rows that a snapshot shows. A row version in its place (table, page and slot) never
// changes once the transaction that made it has ended, and its place goes to another transaction's version only. So two
// snapshots that show the same versions show the same rows, where also the table's shape is the same. The versions are
// counted, and the sum is taken of a 64-bit hash of each.
func identityQuery(tab *postgres.Table) string {
	return "SELECT concat_ws(' ', count(*), sum(pg_catalog.hashtextextended(concat_ws(' ', tableoid, ctid, xmin), 0)::numeric)) FROM " + tab.FromClause()
}

// read brings the table to what a new snapshot shows, at the price of one small question where nothing has changed in the
// whole server, and of a scan within it where nothing has changed in the table.
func (p *poll) read(ctx context.Context, t *snapshot.Table) error {
	if err := p.reader.Open(ctx); err != nil {
		return err
	}
	// Before the snapshot: if it is the same next time, it was the same in between.
	mark, err := p.ask(ctx)
	if err != nil {
		return err
	}
	if mark != "" && mark == p.mark {
		return nil
	}
	if err := p.checkReplay(ctx); err != nil {
		return err
	}
	tx, err := p.reader.Begin(ctx)
	if err != nil {
		return source.WithFileNote(err)
	}
	defer postgres.Rollback(ctx, tx)
	position, _, err := walPosition(ctx, tx)
	if err != nil {
		return err
	}
	foreign, heap, err := postgres.LoadStorage(ctx, tx, p.reader.Table)
	if err != nil {
		return err
	}
	rows := ""
	if heap {
		err := p.reader.WithWatchdog(ctx, func(ctx context.Context) error {
			return tx.QueryRow(ctx, identityQuery(p.reader.Table)).Scan(&rows)
		})
		if err != nil {
			return fmt.Errorf("look for changes of table %s: %w", p.reader.Table.Name(), err)
		}
	}
	if rows == "" || rows != p.rows || p.reader.Table.Fingerprint != p.shape {
		p.mark, p.rows = "", ""
		if err := p.reader.CopyAll(ctx, t, "poll", position); err != nil {
			return err
		}
		p.shown = position
	}
	if p.mark, p.shape, p.rows = mark, p.reader.Table.Fingerprint, rows; foreign {
		p.mark = "" // other servers' transactions show in no snapshot of this one
	}
	return nil
}

// checkReplay returns an error while a standby is behind the state that the file holds already. A standby that crashed
// starts again at its last restartpoint, and answers queries before it has replayed all that it had shown before; another
// standby behind the same address may lag more. The file never goes back: capture waits until the standby has caught up.
// A primary is not asked: after a failover it decides what the state is.
func (p *poll) checkReplay(ctx context.Context) error {
	if p.shown == 0 {
		return nil
	}
	now, standby, err := walPosition(ctx, p.reader.Conn)
	if err != nil {
		return err
	}
	if !standby || now >= p.shown {
		return nil
	}
	return &postgres.Problem{
		Summary: fmt.Sprintf("the standby has replayed WAL up to %s, and feedback.json shows a state of up to %s", now, p.shown),
		Reason:  "its state is older than the file, which never goes back",
		Hint:    "wait until the standby has caught up; if it stays at an older state on purpose, restart capture",
	}
}

// walPosition returns the server's position in the WAL, at or after all that a snapshot taken before shows: on a standby
// what it has replayed, on a primary where it writes next. It is 0 for a standby that has replayed none.
func walPosition(ctx context.Context, q postgres.Querier) (lsn pglogrepl.LSN, standby bool, err error) {
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

// ask gives the server's mark; "" where it has none.
func (p *poll) ask(ctx context.Context) (mark string, err error) {
	rows, err := postgres.Pinned(p.reader.Conn).Query(ctx, markQuery)
	if err == nil {
		defer rows.Close()
		if rows.Next() {
			err = rows.Scan(&mark)
		}
		rows.Close()
	}
	if err == nil {
		err = rows.Err()
	}
	if err != nil {
		return "", fmt.Errorf("ask for the server's snapshot: %w", err)
	}
	return mark, nil
}
