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
	lossReread   = 10 * time.Second // time between full reads while triggers may drop notifications
	hourlyReread = time.Hour        // longest time between full reads, even if nothing indicates a change
	statsReread  = time.Minute      // shortest time between a full read and the next one if only the statistics show a change
	statsDelay   = 75 * time.Second // after this time, the statistics include a notified change; they lag by up to a minute
)

// activity holds signs of changes and of lost notifications.
type activity struct {
	queue         postgres.NotificationQueue
	relationFiles string // names of the files that hold the rows; TRUNCATE and a rewrite replace the files
	changes       int64  // number of changed rows according to the statistics, which lag and include rolled-back changes
}

// fullReadReason returns the reason why the whole table must be read again, or "" if there is none. previous is the
// activity at the previous check. sinceRead is the time since checkLoop last requested a full read. sinceNotified is the
// time since the last notification.
func (a activity) fullReadReason(previous activity, sinceRead, sinceNotified time.Duration) string {
	switch {
	case a.queue.LosesNotifications() && sinceRead >= lossReread:
		return lossReason(a.queue)
	case previous.queue.LosesNotifications() && !a.queue.LosesNotifications():
		return "the triggers send all notifications again"
	case a.relationFiles != previous.relationFiles:
		return "the table was truncated or rewritten"
	case a.changes != previous.changes && sinceNotified > statsDelay && sinceRead >= statsReread:
		return "the statistics show changes without a notification"
	case sinceRead >= hourlyReread:
		return "once an hour, for changes that bypassed the triggers"
	}
	return ""
}

// lossReason returns why the triggers drop notifications. The triggers drop notifications before the server's queue is full,
// because a full queue would make the application's commits fail.
func lossReason(q postgres.NotificationQueue) string {
	if q.Hidden {
		return "PUBLIC lacks EXECUTE on pg_notification_queue_usage() or float8le(float8, float8), which the triggers call before they send"
	}
	return fmt.Sprintf("the server's queue of notifications is %.0f %% full, because a session listens and does not read", q.Usage*100)
}

// lossChanged reports whether the triggers drop notifications for another reason than before, or have started or
// stopped dropping them.
func lossChanged(before, now postgres.NotificationQueue) bool {
	return now.LosesNotifications() != before.LosesNotifications() || now.Hidden != before.Hidden
}

// checkLoop regularly checks for what notifications do not show: a new definition of the table, missing or bypassed triggers,
// and a full queue. lastActivity was read before the first copy.
func (s *Source) checkLoop(ctx context.Context, lastActivity activity) error {
	s.reportLoss(lastActivity.queue)
	lastRequest := time.Now() // time of this loop's last request for a full read
	return s.env.CheckLoop(ctx, func(ctx context.Context) error {
		now, err := s.check(ctx)
		if err != nil {
			return err
		}
		if reason := now.fullReadReason(lastActivity, time.Since(lastRequest), s.pending.sinceNotified()); reason != "" {
			lastRequest = time.Now()
			s.pending.requestFullRead(reason)
		}
		if lossChanged(lastActivity.queue, now.queue) {
			s.reportLoss(now.queue)
		}
		lastActivity = now
		return nil
	})
}

// reportLoss reports in the log and in the status why the triggers drop notifications. If the triggers drop none, it removes
// the report from the status.
func (s *Source) reportLoss(q postgres.NotificationQueue) {
	text := ""
	if q.LosesNotifications() {
		text = lossReason(q) + "; until this ends, the whole table is read every " + lossReread.String()
		s.log.Warn(text)
	}
	s.env.Progress.SetCondition("notifications", text)
}

// check returns the current activity. It returns an error if the table's definition has changed since the source started, or if
// the triggers are not intact.
func (s *Source) check(ctx context.Context) (a activity, err error) {
	err = s.queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if err := s.env.WithdrawHarmful(ctx, conn, s.table.Name()); err != nil {
			return err
		}
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
		if a.queue, err = postgres.LoadNotificationQueue(ctx, conn); err != nil {
			return err
		}
		err = conn.QueryRow(ctx, `
			SELECT COALESCE(string_agg(pg_catalog.pg_relation_filenode(oid)::text, ' ' ORDER BY oid), ''),
				COALESCE(sum(pg_catalog.pg_stat_get_tuples_inserted(oid) + pg_catalog.pg_stat_get_tuples_updated(oid)
					+ pg_catalog.pg_stat_get_tuples_deleted(oid)), 0)::bigint
			FROM `+postgres.TreeSQL("$1")+` t(oid)`,
			s.table.OID).Scan(&a.relationFiles, &a.changes)
		if err != nil {
			return fmt.Errorf("query the activity of table %s: %w", s.table.Name(), err)
		}
		return nil
	})
	return a, err
}

// checkTriggers returns a *source.ResyncError if triggers are missing or differ from those that capture creates. If the
// operator chose this source, the next attempt repairs the triggers before its copy.
func (s *Source) checkTriggers(ctx context.Context, q postgres.Querier) error {
	err := postgres.CheckTriggers(ctx, q, s.table)
	if problem := (*postgres.Problem)(nil); errors.As(err, &problem) && problem.Err == nil {
		return &source.ResyncError{Reason: problem.Summary}
	}
	return err
}

// checkNotifications returns an error if triggers are missing or differ from those that capture creates. If the triggers may
// have dropped notifications, it turns b into a full read.
func (s *Source) checkNotifications(ctx context.Context, tx pgx.Tx, b *keyBatch) error {
	if err := s.checkTriggers(ctx, tx); err != nil {
		return err
	}
	queue, err := postgres.LoadNotificationQueue(ctx, tx)
	if err != nil {
		return err
	}
	if queue.LosesNotifications() {
		b.fullReadReason = lossReason(queue)
	}
	return nil
}
