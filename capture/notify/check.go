package notify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/postgres"
)

const (
	fullQueueReread = 10 * time.Second // time between full reads while the server's queue is too full to be trusted
	hourlyReread    = time.Hour        // time between full reads, whatever was notified
	statsReread     = time.Minute      // time between full reads for changes that only the statistics show
	statsDelay      = 75 * time.Second // time after which a notified change is in the statistics, which takes up to a minute
)

// activity is what changes leave behind in addition to notifications.
type activity struct {
	queueUsage    float64 // how full the server's queue of notifications is, from 0 to 1
	relationFiles string  // names of the files that hold the rows; TRUNCATE and rewriting replace them
	changes       int64   // number of rows inserted, updated and deleted, from the statistics: late, and with those rolled back
}

// queueTooFull reports whether triggers may have dropped notifications because the queue is nearly full. They do that
// because the application's commits would fail if it became full.
func (a activity) queueTooFull() bool { return a.queueUsage > postgres.NotifyQueueLimit }

// fullReadReason returns why the whole table must be read again, given the activity at the last check, the time since that
// was last asked for, and the time since the last notification; "" if it need not be.
func (a activity) fullReadReason(before activity, sinceRead, sinceNotified time.Duration) string {
	switch {
	case a.queueTooFull() && sinceRead >= fullQueueReread:
		return queueProblem(a.queueUsage)
	case before.queueTooFull() && !a.queueTooFull():
		return "the server's queue of notifications is no longer too full"
	case a.relationFiles != before.relationFiles:
		return "the table was truncated or rewritten"
	case a.changes != before.changes && sinceNotified > statsDelay && sinceRead >= statsReread:
		return "the statistics show changes without a notification"
	case sinceRead >= hourlyReread:
		return "once an hour, for changes that bypassed the triggers"
	}
	return ""
}

func queueProblem(usage float64) string {
	return fmt.Sprintf("the server's queue of notifications is %.0f %% full, because a session listens and does not read", usage*100)
}

// checkLoop regularly checks what notifications do not tell of: another definition, triggers that are missing or bypassed, a
// full queue. last is the activity before the first copy.
func (s *Source) checkLoop(ctx context.Context, last activity) error {
	lastRequest := time.Now() // of a full read by this loop
	return s.env.CheckLoop(ctx, func(ctx context.Context) error {
		now, err := s.check(ctx)
		if err != nil {
			return err
		}
		if reason := now.fullReadReason(last, time.Since(lastRequest), s.pending.sinceNotified()); reason != "" {
			lastRequest = time.Now()
			s.pending.requestFullRead(reason)
		}
		if now.queueTooFull() != last.queueTooFull() {
			s.reportQueue(now)
		}
		last = now
		return nil
	})
}

func (s *Source) reportQueue(a activity) {
	text := ""
	if a.queueTooFull() {
		text = queueProblem(a.queueUsage) + "; until it drains, the whole table is read every " + fullQueueReread.String()
		s.log.Warn(text)
	}
	s.env.Progress.SetCondition("notifications", text)
}

// check compares the catalog with the table as it was copied, and the triggers with what they should be. It returns the
// activity at this moment.
func (s *Source) check(ctx context.Context) (a activity, err error) {
	err = s.queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		fingerprint, err := postgres.TableFingerprint(ctx, conn, s.env.Table)
		if err != nil {
			return source.WithFileNote(err)
		}
		if fingerprint != s.table.Fingerprint {
			return &source.ResyncError{Reason: fmt.Sprintf("the definition of table %s changed", s.table.Name())}
		}
		if err := s.checkTriggers(ctx, conn); err != nil {
			return err
		}
		err = conn.QueryRow(ctx, `
			SELECT pg_catalog.pg_notification_queue_usage(),
				COALESCE(string_agg(pg_catalog.pg_relation_filenode(oid)::text, ' ' ORDER BY oid), ''),
				COALESCE(sum(pg_catalog.pg_stat_get_tuples_inserted(oid) + pg_catalog.pg_stat_get_tuples_updated(oid)
					+ pg_catalog.pg_stat_get_tuples_deleted(oid)), 0)::bigint
			FROM (SELECT $1::oid UNION SELECT relid FROM pg_catalog.pg_partition_tree($1::oid::regclass)) t(oid)`,
			s.table.OID).Scan(&a.queueUsage, &a.relationFiles, &a.changes)
		if err != nil {
			return fmt.Errorf("query the activity of table %s: %w", s.table.Name(), err)
		}
		return nil
	})
	return a, err
}

// checkTriggers returns a *source.ResyncError if the triggers are not what they should be. The next attempt repairs them
// before its copy.
func (s *Source) checkTriggers(ctx context.Context, q postgres.Querier) error {
	err := postgres.CheckTriggers(ctx, q, s.table)
	if problem := (*postgres.Problem)(nil); errors.As(err, &problem) && problem.Err == nil {
		return &source.ResyncError{Reason: problem.Summary}
	}
	return err
}

// checkNotifications makes sure that all changes are notified. If notifications may have been dropped, b becomes a full
// read.
func (s *Source) checkNotifications(ctx context.Context, tx pgx.Tx, b *keyBatch) error {
	if err := s.checkTriggers(ctx, tx); err != nil {
		return err
	}
	var a activity
	if err := tx.QueryRow(ctx, "SELECT pg_catalog.pg_notification_queue_usage()").Scan(&a.queueUsage); err != nil {
		return fmt.Errorf("query the usage of the notification queue: %w", err)
	}
	if a.queueTooFull() {
		b.fullReadReason = queueProblem(a.queueUsage)
	}
	return nil
}
