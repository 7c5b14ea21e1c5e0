package capture

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/guard"
	"capture/internal/postgres"
	"capture/snapshot"
)

const (
	burst        = 20 * time.Millisecond // after a first notification, for the rest of a burst
	closeWithin  = 3 * time.Second       // for a mark to come back, before the whole table is read instead
	queueReread  = 10 * time.Second      // between whole reads while the server's queue is too full to be trusted
	statsDelay   = 75 * time.Second      // after which a change that was notified is in the statistics (a minute at most)
	statsReread  = time.Minute           // between whole reads for changes that only the statistics tell of
	firstPause   = time.Second           // after a whole read that a notification asked for; each role that may connect can ask
	longestPause = 10 * time.Second      // to which it doubles while more follow
	silentReread = time.Hour             // of the whole table, whatever was heard
)

// notify follows a table by notifications that its triggers send.
//
// Each View is the table as one snapshot of the database shows it. A round goes from one such state to a later one:
//
//  1. Take the keys heard so far.
//  2. Open a REPEATABLE READ transaction; its first query takes the snapshot.
//  3. Send a mark to a channel of our own from another session, and listen until it comes back.
//  4. In the transaction of 2, read back the rows of all keys heard by now, and commit them as the next View. What was
//     heard after 1 is read again in the next round.
//
// The server puts a transaction's notifications into its one queue before the transaction becomes visible to any
// snapshot, in the order of commits (one at a time, under a lock held until the commit is done), and delivers them in
// that order, none before its transaction is visible. So when the mark of 3 comes, all notifications of all transactions
// that the snapshot of 2 shows have come: the keys of 4 miss none of them. They may have some of later transactions,
// whose rows read as the snapshot shows them, which is as they are already. What was heard in 1 is of transactions that
// the snapshot shows, and is done with. No round can therefore show one row of a transaction without the others.
//
// LISTEN comes before the first copy's snapshot, so that a transaction which the copy does not show is heard.
type notify struct {
	env    *source.Env
	log    hclog.Logger
	side   *postgres.QueryConn
	reader *tablecopy.Reader
	heard  *heard
	tab    *postgres.Table // as it was copied; another shape ends the source
	marks  string          // our own channel
	mark   uint64          // the last one sent

	*source.Rounds
	traffic postgres.ReadClock

	pauseWhole          time.Duration // after the last whole read
	rested, restedWhole time.Time     // before which no round is due by itself: the database rests as long as the last one took
}

func newNotify(env *source.Env) *notify {
	var id [6]byte
	_, _ = rand.Read(id[:]) // it never fails
	return &notify{
		env: env, log: env.Logger, side: postgres.NewQueryConn(env.Database, env.Timeouts.Idle), heard: newHeard(env.Progress),
		reader: tablecopy.NewReader(env, "notify"), marks: "capture_mark_" + hex.EncodeToString(id[:]),
		Rounds: source.NewRounds(),
	}
}

// Follow implements Source.
func (n *notify) Follow(ctx context.Context, t *snapshot.Table) error {
	defer n.End()
	defer n.side.Close()
	defer n.reader.Close()
	if err := n.prepare(ctx); err != nil {
		return err
	}
	l, err := newListener(ctx, n.traffic.Attach(n.env.Database), n.tab, n.marks, n.heard, n.env.Timeouts)
	if err != nil {
		return err
	}
	defer postgres.CloseNow(l.conn.PgConn())
	if err := n.reader.Open(ctx); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return guard.Run(n.log, "listen", func() error { return l.run(ctx) }) })
	g.Go(func() error {
		return guard.Run(n.log, "read changed rows", func() error {
			n.env.Progress.SetCopying()
			traces, err := n.check(ctx) // before the copy: what changes after it must show
			if err != nil {
				return err
			}
			n.heard.doubt("first copy")
			if err := n.round(ctx, t, false); err != nil {
				return err
			}
			n.env.Progress.SetFollowing(&n.traffic)
			n.log.Info("following", "table", n.tab.Name().String(), "source", "notify", "channel", l.channel)
			g.Go(func() error { return guard.Run(n.log, "check the table", func() error { return n.watch(ctx, traces) }) })
			return n.loop(ctx, t)
		})
	})
	return g.Wait()
}

// prepare looks at the server and the table, and sees to the triggers.
func (n *notify) prepare(ctx context.Context) error {
	return n.side.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		srv, tab, err := postgres.LoadServerAndTable(ctx, conn, n.env.Table)
		switch {
		case srv.Pooled:
			return &postgres.Problem{
				Summary: "the connection goes through a pooler", Reason: "whose sessions change hands, so that none of them can listen to notifications",
				Hint: "point --database-url at the server itself, or use --source poll",
			}
		case srv.InRecovery:
			return &postgres.Problem{
				Summary: "the server is a standby or still recovering", Reason: "nobody can listen to notifications there",
				Hint: "point --database-url at the primary, or use --source poll",
			}
		case err != nil:
			return err
		}
		n.tab = tab
		if err := tab.KeyProblem(); err != nil && n.env.Progress.SetCondition("key", err.Error()) {
			n.log.Warn("rows cannot be read by their keys", "error", err)
		}
		foreign, _, err := postgres.LoadStorage(ctx, conn, n.tab)
		if err != nil {
			return err
		}
		if foreign {
			return &postgres.Problem{
				Summary: fmt.Sprintf("table %s has a partition on another server", n.tab.Name()), Reason: "whose changes send no notification",
				Hint: "use --source poll, or detach it",
			}
		}
		return ensureTriggers(ctx, conn, n.tab, n.env.Chosen)
	})
}

// ensureTriggers puts the triggers on the table where they are missing. A transaction that has notified cannot be
// prepared for a two-phase commit: where the server allows those, only somebody who asks for this source gets triggers
// made.
func ensureTriggers(ctx context.Context, conn *pgx.Conn, tab *postgres.Table, asked bool) error {
	missing := postgres.CheckTriggers(ctx, conn, tab)
	problem := (*postgres.Problem)(nil)
	if missing == nil || !errors.As(missing, &problem) || problem.Err != nil {
		return missing
	}
	statements, err := postgres.SetupSQL(ctx, conn, tab, postgres.SetupOptions{Source: "notify"})
	if err != nil {
		return err
	}
	var twoPhases bool
	err = conn.QueryRow(ctx, "SELECT pg_catalog.current_setting('max_prepared_transactions')::int > 0").Scan(&twoPhases)
	if err != nil {
		return fmt.Errorf("ask for max_prepared_transactions: %w", err)
	}
	problem.Hint = strings.Join(statements, "; ") + ";"
	if twoPhases && !asked {
		problem.Reason = "they are not made unasked, since max_prepared_transactions is not 0 and PREPARE TRANSACTION fails after a notification"
		problem.Hint = "where no application uses two-phase commits, capture setup --source notify --table " + tab.Name().String()
		return problem
	}
	if err := postgres.ApplyStatements(ctx, conn, statements); err != nil {
		problem.Reason, problem.Err = "making them failed: "+err.Error(), err
		return problem
	}
	return nil
}

// loop makes rounds, as notifications and barriers demand them.
func (n *notify) loop(ctx context.Context, t *snapshot.Table) error {
	for {
		due, cancel := n.due()
		var waiting []chan error
		select {
		case <-ctx.Done():
			cancel()
			return ctx.Err()
		case <-n.heard.signal:
			cancel()
			continue // what is due may have changed
		case r := <-n.Requests():
			waiting = append(waiting, r)
		case <-due:
		}
		cancel()
		for more := true; more; {
			select {
			case r := <-n.Requests():
				waiting = append(waiting, r)
			default:
				more = false
			}
		}
		err := n.round(ctx, t, len(waiting) > 0)
		for _, r := range waiting {
			r <- err
		}
		if err != nil {
			return err
		}
	}
}

// due has a value when the next round is due by itself: never, where nothing was heard.
func (n *notify) due() (<-chan time.Time, func()) {
	since, all := n.heard.pending()
	if since.IsZero() {
		return nil, func() {}
	}
	at := since.Add(burst)
	if at.Before(n.rested) {
		at = n.rested
	}
	if all && at.Before(n.restedWhole) {
		at = n.restedWhole
	}
	timer := time.NewTimer(time.Until(at))
	return timer.C, func() { timer.Stop() }
}

// round brings the table to the state that a new snapshot shows. A forced one also makes sure that notifications can be
// trusted: it stands for all that was committed before.
func (n *notify) round(ctx context.Context, t *snapshot.Table, forced bool) error {
	start := time.Now()
	b := n.heard.take()
	if !forced && b.all == "" && len(b.keys) == 0 {
		return nil
	}
	tx, err := n.reader.Begin(ctx)
	if err != nil {
		return source.WithFileNote(err)
	}
	defer postgres.Rollback(ctx, tx)
	if n.reader.Table.Fingerprint != n.tab.Fingerprint {
		return &source.ResyncError{Reason: fmt.Sprintf("the definition of table %s changed", n.tab.Name())}
	}
	problem := n.reader.KeyLookupProblem()
	if problem != "" && len(b.keys) > 0 {
		b.all = problem
	}
	if forced && b.all == "" {
		if err := n.trusted(ctx, tx, &b); err != nil {
			return err
		}
	}
	if b.all == "" {
		n.closeBatch(ctx, &b)
		if problem != "" && len(b.keys) > 0 {
			b.all = problem
		}
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if b.all != "" {
		err = n.reader.CopyAll(ctx, t, b.all, 0)
		if !forced {
			n.restWhole(time.Since(start))
		}
		return err
	}
	if err := n.apply(ctx, t, b, start); err != nil {
		if ctx.Err() != nil || n.reader.Conn.IsClosed() {
			return err
		}
		// Any role may notify, of keys that the table cannot have. If something else is wrong, the whole read shows it.
		n.log.Warn("the rows of a notification could not be read", "error", postgres.RedactedMessage(err))
		n.heard.doubt("a notification has a key that could not be read")
		if forced {
			postgres.Rollback(ctx, tx)
			return n.round(ctx, t, true)
		}
		return nil
	}
	n.rested = time.Now().Add(min(time.Since(start), time.Second))
	return nil
}

// restWhole sets how long no whole read is due by itself, after one that took so long. The pauses grow while notifications
// ask for more of them, and are short again after a minute without any.
func (n *notify) restWhole(took time.Duration) {
	now := time.Now()
	if now.Sub(n.restedWhole) > time.Minute {
		n.pauseWhole = 0
	}
	n.pauseWhole = min(max(2*n.pauseWhole, firstPause), longestPause)
	n.restedWhole = now.Add(max(took, n.pauseWhole))
}

// trusted makes sure that the triggers notify, and else has the batch be the whole table.
func (n *notify) trusted(ctx context.Context, tx pgx.Tx, b *batch) error {
	if err := n.triggered(ctx, tx); err != nil {
		return err
	}
	var usage float64
	if err := tx.QueryRow(ctx, "SELECT pg_catalog.pg_notification_queue_usage()").Scan(&usage); err != nil {
		return fmt.Errorf("look at the queue of notifications: %w", err)
	}
	if usage > postgres.NotifyQueueLimit {
		b.all = queueFull(usage)
	}
	return nil
}

func queueFull(usage float64) string {
	return fmt.Sprintf("the server's queue of notifications is %.0f %% full, as some session listens and does not read", usage*100)
}

// triggered says, as an *source.ResyncError, that the triggers are not what they should be: they are mended before another copy.
func (n *notify) triggered(ctx context.Context, q postgres.Querier) error {
	err := postgres.CheckTriggers(ctx, q, n.tab)
	if problem := (*postgres.Problem)(nil); errors.As(err, &problem) && problem.Err == nil {
		return &source.ResyncError{Reason: problem.Summary}
	}
	return err
}

// closeBatch sends a mark and waits for it: steps 3 and the first half of 4. Where that takes long, as when a commit that
// notifies waits for a synchronous standby, the whole table is read instead, which needs no mark.
func (n *notify) closeBatch(ctx context.Context, b *batch) {
	wait, cancel := context.WithTimeout(ctx, closeWithin)
	defer cancel()
	n.mark++
	// Nobody waits for a mark to be on disk.
	send := fmt.Sprintf("BEGIN; SET LOCAL synchronous_commit = off; SELECT pg_catalog.pg_notify(%s, '%d'); COMMIT", postgres.QuoteLiteral(n.marks), n.mark)
	err := n.side.Do(wait, func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, send, pgx.QueryExecModeSimpleProtocol)
		return err
	})
	if err == nil {
		err = n.heard.reached(wait, n.mark)
	}
	if err != nil {
		n.log.Debug("a mark did not come back", "error", err)
		b.all = "other transactions' notifications are late"
		return
	}
	n.heard.join(b)
}

// apply reads the batch's rows back.
func (n *notify) apply(ctx context.Context, t *snapshot.Table, b batch, start time.Time) error {
	if len(b.keys) == 0 {
		return nil
	}
	keys := make([][]string, 0, len(b.keys))
	for _, k := range b.keys {
		keys = append(keys, k)
	}
	x, err := n.reader.ReadRows(ctx, t, keys)
	if err != nil || x.Changes() == 0 {
		return err
	}
	n.env.Progress.RecordCommit(x)
	n.log.Info("captured", append(x.LogFields(n.tab.Shape), "ms", source.Milliseconds(time.Since(start)))...)
	return nil
}
