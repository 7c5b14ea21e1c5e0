// Package notify follows a table by notifications that its triggers send, for servers without logical replication.
//
// The listener receives the keys of changed rows and adds them to the pending keys. The loop of [Source] reads these rows in
// rounds. Regular checks detect changes that no notification reports.
//
// # Files
//
//   - source.go: Source and its rounds
//   - listener.go, pendingkeys.go: the listener; the keys to read, and the limit above which a round reads the whole table
//   - lostnotifications.go: the regular checks
//   - triggers.go: the triggers
package notify

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/guard"
	"capture/internal/postgres"
	"capture/snapshot"
)

const (
	burstDelay   = 20 * time.Millisecond // time from the first pending notification to the next round, so that the round includes the rest of a burst
	longestPause = time.Second           // longest pause after a round that reads single rows

	// Pauses between full reads that notifications request. They limit the load that such notifications cause, because any role
	// that may connect can send them.
	firstFullReadPause   = time.Second
	longestFullReadPause = 10 * time.Second

	markerTimeout = 3 * time.Second // longest wait for a marker
)

// Source follows a table by notifications.
//
// Each View shows the table as of one snapshot of the database. A round advances from one such state to a later one:
//
//  1. Drain the pending keys.
//  2. Open a REPEATABLE READ transaction; its first query takes the snapshot.
//  3. Send a marker from another session: a notification on a channel of our own. Wait until the listener receives it.
//  4. In the transaction of step 2, read the rows of all keys received so far, and commit them as the next View. The keys
//     that arrived after step 1 are read again in the next round.
//
// The server has one queue of notifications. A transaction that commits takes a lock, appends its notifications to the
// queue, becomes visible to new snapshots, and then releases the lock. Therefore, the queue is in commit order. The server
// delivers notifications in this order, and delivers a notification only after its transaction has become visible.
//
// When the marker arrives, the listener has therefore received the notifications of every transaction that the snapshot of
// step 2 shows. Step 4 reads all rows that these transactions changed, so no View shows only a part of a transaction. The
// keys may include keys of later transactions. Reading their rows does no harm, because the snapshot does not show the later
// changes, and the next round reads these rows again. The keys drained in step 1 need no second read, because their
// transactions are in the snapshot.
//
// The listener starts before the first copy takes its snapshot. It therefore receives the notifications of every transaction
// that the first copy does not show.
type Source struct {
	*source.Rounds
	env     *source.Env
	log     hclog.Logger
	queries *postgres.QueryConn
	reader  *tablecopy.Reader
	reads   postgres.ReadClock // records when data last arrived over the listener's connection
	pending *pendingKeys
	table   *postgres.Table // the table's definition when the source started; the source ends if the definition changes

	markerChannel string
	marker        uint64 // number of the last marker sent

	// Earliest times of the next round and of the next read of the whole table. Barrier ignores these times: a round that
	// Barrier requests starts at once. The pause after a round or a full read grows with its duration, which limits the load on
	// the database.
	nextRound, nextFullRead time.Time
	fullReadPause           time.Duration // minimum length of the pause after the last full read
}

// New returns a Source for one call of Follow.
func New(env *source.Env) *Source {
	var id [6]byte
	_, _ = rand.Read(id[:]) // never fails
	return &Source{
		Rounds: source.NewRounds(), env: env, log: env.Logger, queries: postgres.NewQueryConn(env.Database, env.Timeouts.Idle),
		reader: tablecopy.NewReader(env, "notify"), pending: newPendingKeys(env.Progress),
		markerChannel: "capture_mark_" + hex.EncodeToString(id[:]),
	}
}

// Probe returns the error that would keep a Source from following the table now, or nil.
func Probe(ctx context.Context, env *source.Env) error {
	s := New(env)
	defer s.queries.Close()
	return s.prepare(ctx)
}

// Follow implements source.Source.
func (s *Source) Follow(ctx context.Context, t *snapshot.Table) error {
	defer s.End()
	defer s.queries.Close()
	defer s.reader.Close()
	if err := s.prepare(ctx); err != nil {
		return err
	}
	if err := s.reader.Open(ctx); err != nil {
		return err
	}
	if err := s.reader.LoadRows(ctx, t, s.table); err != nil {
		return err
	}
	l, err := newListener(ctx, s.env, &s.reads, s.table, s.markerChannel, s.pending)
	if err != nil {
		return err
	}
	defer l.close()
	g, ctx := errgroup.WithContext(ctx)
	start := func(task string, f func() error) {
		g.Go(func() error { return guard.Run(s.log, task, f) })
	}
	start("listen", func() error { return l.run(ctx) })
	start("read changed rows", func() error {
		before, err := s.check(ctx) // check before the copy, so that checkLoop detects what changes during the copy
		if err != nil {
			return err
		}
		s.env.Progress.SetCopying()
		s.pending.requestFullRead("first copy")
		if err := s.runRound(ctx, t, false); err != nil {
			return err
		}
		s.env.Progress.SetFollowing(&s.reads)
		s.log.Info("following", "table", s.table.Name().String(), "source", "notify", "channel", l.channel)
		start("check the table", func() error { return s.checkLoop(ctx, before) })
		return s.loop(ctx, t)
	})
	return g.Wait()
}

// prepare loads the properties of the server and the table, and makes sure that the triggers exist.
func (s *Source) prepare(ctx context.Context) error {
	return s.queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		server, table, err := postgres.LoadServerAndTable(ctx, conn, s.env.Table)
		switch {
		case server.Pooled:
			return &postgres.Problem{
				Summary: "the connection goes through a pooler", Reason: "its sessions change hands, so none of them can listen to notifications",
				Hint: "point --database-url at the server itself, or use --source poll",
			}
		case server.InRecovery:
			return &postgres.Problem{
				Summary: "the server is a standby or still recovering", Reason: "nobody can listen to notifications there",
				Hint: "point --database-url at the primary, or use --source poll",
			}
		case err != nil:
			return err
		}
		s.table = table
		if err := table.KeyProblem(); err != nil && s.env.Progress.SetCondition("key", err.Error()) {
			s.log.Warn("rows cannot be read by their keys", "error", err)
		}
		foreign, _, err := postgres.LoadStorage(ctx, conn, table)
		if err != nil {
			return err
		}
		if foreign {
			return &postgres.Problem{
				Summary: fmt.Sprintf("table %s has a partition on another server", table.Name()), Reason: "its changes send no notification",
				Hint: "use --source poll, or detach it",
			}
		}
		return ensureTriggers(ctx, conn, table, s.env.Chosen)
	})
}

// loop runs a round (see [Source]) when pending keys are due, and whenever Barrier requests a round.
func (s *Source) loop(ctx context.Context, t *snapshot.Table) error {
	for {
		due, stop := s.roundDue()
		var waiting []chan error
		select {
		case <-ctx.Done():
			stop()
			s.reader.ConfirmLast(t)
			return ctx.Err()
		case <-s.pending.changed:
			stop()
			continue // the next round may be due at another time now
		case <-s.reader.ConfirmDue():
			stop()
			if err := s.reader.Confirm(ctx, t); err != nil {
				return err
			}
			continue
		case r := <-s.Requests():
			waiting = append(waiting, r)
		case <-due:
		}
		stop()
		for more := true; more; {
			select {
			case r := <-s.Requests():
				waiting = append(waiting, r)
			default:
				more = false
			}
		}
		err := s.reader.Outlast(ctx, func(ctx context.Context) error { return s.runRound(ctx, t, len(waiting) > 0) })
		for _, r := range waiting {
			r <- err
		}
		if err != nil {
			return err
		}
	}
}

// roundDue returns a channel that receives a value when a round for the pending keys is due (see [Source]). The channel is
// nil if nothing is pending. stopTimer releases the channel's timer.
func (s *Source) roundDue() (due <-chan time.Time, stopTimer func()) {
	since, full := s.pending.oldest()
	if since.IsZero() {
		return nil, func() {}
	}
	at := since.Add(burstDelay)
	if at.Before(s.nextRound) {
		at = s.nextRound
	}
	if full && at.Before(s.nextFullRead) {
		at = s.nextFullRead
	}
	timer := time.NewTimer(time.Until(at))
	return timer.C, func() { timer.Stop() }
}

// runRound advances t to the state that a new snapshot shows (see [Source]). forced means that Barrier requested the round. A
// forced round also checks that no notification can be missing, because Barrier guarantees that every earlier commit is
// included.
func (s *Source) runRound(ctx context.Context, t *snapshot.Table, forced bool) error {
	start := time.Now()
	b := s.pending.drain()
	if !forced && b.isEmpty() {
		return nil
	}
	tx, err := s.reader.Begin(ctx)
	if err != nil {
		return source.WithFileNote(err)
	}
	defer postgres.Rollback(ctx, tx)
	position, _, err := postgres.LoadWALPosition(ctx, tx)
	if err != nil {
		return err
	}
	if s.reader.Table.Fingerprint != s.table.Fingerprint {
		return &source.ResyncError{Reason: fmt.Sprintf("the definition of table %s changed", s.table.Name())}
	}
	requested := b.fullReadReason != ""
	if err := s.completeBatch(ctx, tx, &b, forced); err != nil {
		return err
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if b.fullReadReason != "" {
		err = s.reader.Update(ctx, t, b.fullReadReason, position)
		if !forced {
			took := time.Since(start)
			s.delayFullRead(took)
			// Nobody requested this full read: its reason lies in the table or the server. The next round may need another
			// full read. Therefore the next round begins only after a pause.
			if !requested {
				s.nextRound = time.Now().Add(took)
			}
		}
		return err
	}
	if err := s.readRows(ctx, t, b, position, start); err != nil {
		if ctx.Err() != nil || s.reader.Conn.IsClosed() {
			return err
		}
		// The cause may be an invalid key, because any role may send a notification. A full read does not need the key. If the
		// error has another cause, the full read fails, too.
		s.log.Warn("cannot read the rows of a notification", "error", postgres.RedactedMessage(err))
		s.pending.requestFullRead("a notification has a key that cannot be read")
		if forced {
			postgres.Rollback(ctx, tx)
			return s.runRound(ctx, t, true)
		}
		return nil
	}
	s.nextRound = time.Now().Add(min(time.Since(start), longestPause))
	return nil
}

// delayFullRead sets the earliest time of the next full read that Barrier has not requested. readTook is the duration of
// the last full read. The pauses grow while one full read follows another, and are short again after a minute without a full
// read.
func (s *Source) delayFullRead(readTook time.Duration) {
	now := time.Now()
	if now.Sub(s.nextFullRead) > time.Minute {
		s.fullReadPause = 0
	}
	s.fullReadPause = min(max(2*s.fullReadPause, firstFullReadPause), longestFullReadPause)
	s.nextFullRead = now.Add(max(readTook, s.fullReadPause))
}

// completeBatch adds to b the keys that have arrived since runRound drained the pending keys into b. If the keys may be
// incomplete or cannot be looked up, completeBatch turns b into a full read instead.
func (s *Source) completeBatch(ctx context.Context, tx pgx.Tx, b *keyBatch, forced bool) error {
	lookupProblem := s.reader.KeyLookupProblem()
	if lookupProblem != "" && len(b.keys) > 0 {
		b.fullReadReason = lookupProblem
	}
	if forced && b.fullReadReason == "" {
		if err := s.checkNotifications(ctx, tx, b); err != nil {
			return err
		}
	}
	if b.fullReadReason == "" {
		s.waitForMarker(ctx, b)
		if lookupProblem != "" && len(b.keys) > 0 {
			b.fullReadReason = lookupProblem
		}
	}
	return nil
}

// waitForMarker is step 3 of a round: it sends a marker, waits for it, and adds to b the keys that have arrived by then. If
// the marker does not arrive in time, waitForMarker turns b into a full read, which needs no marker. One cause of a late
// marker is a commit with notifications that waits for a synchronous standby.
func (s *Source) waitForMarker(ctx context.Context, b *keyBatch) {
	waiting, cancel := context.WithTimeout(ctx, cmp.Or(s.env.Timeouts.Marker, markerTimeout))
	defer cancel()
	s.marker++
	// The marker's commit need not be flushed to disk, because nothing depends on it after a crash.
	send := fmt.Sprintf("BEGIN; SET LOCAL synchronous_commit = off; NOTIFY %s, '%d'; COMMIT",
		postgres.QuoteIdentifier(s.markerChannel), s.marker)
	err := s.queries.Do(waiting, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, send, pgx.QueryExecModeSimpleProtocol)
		return err
	})
	if err == nil {
		err = s.pending.waitMarker(waiting, s.marker)
	}
	if err != nil {
		s.log.Debug("marker did not come back", "error", err)
		b.fullReadReason = "other transactions' notifications are late"
		return
	}
	s.pending.mergeInto(b)
}

// readRows reads the rows of the batch and commits them as the next View, at the given WAL position.
func (s *Source) readRows(ctx context.Context, t *snapshot.Table, b keyBatch, position pglogrepl.LSN, start time.Time) error {
	if len(b.keys) == 0 {
		return nil
	}
	keys := make([][]string, 0, len(b.keys))
	for _, k := range b.keys {
		keys = append(keys, k)
	}
	stats, err := s.reader.ReadRows(ctx, t, keys, position)
	if err != nil || stats.Changes() == 0 {
		return err
	}
	s.env.Progress.RecordCommit(stats)
	s.log.Info("captured", stats.LogFields(s.table.Shape, "ms", source.Milliseconds(time.Since(start)))...)
	return nil
}
