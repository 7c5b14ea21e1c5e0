package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/postgres"
)

// watch looks regularly for what notifications do not tell: another shape, triggers that are gone or bypassed, a full
// queue. was is what there was before the first copy.
func (n *notify) watch(ctx context.Context, was tableTraces) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	troubled := false
	read := time.Now() // when the whole table was last asked for from here
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		is, err := n.check(ctx)
		anew, problem := (*source.ResyncError)(nil), (*postgres.Problem)(nil)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &anew), errors.As(err, &problem) && (problem.TableMissing() || problem.Err == nil):
			return err // the table is not what it was: the source ends
		case err != nil:
			// The listener may be well while this connection is not: it will tell by itself.
			if !troubled {
				n.log.Warn("the regular check of the table failed", "error", err)
				n.env.Progress.SetCondition("checks", "the regular check of the table fails: "+err.Error())
			}
			troubled = true
			continue
		}
		if troubled {
			troubled = false
			n.env.Progress.SetCondition("checks", "")
		}
		if why := is.doubt(was, time.Since(read), time.Since(n.heard.lastHeard())); why != "" {
			read = time.Now()
			n.heard.doubt(why)
		}
		if full := is.full(); full != was.full() {
			n.sayFull(full, is.queue)
		}
		was = is
	}
}

func (n *notify) sayFull(full bool, usage float64) {
	if !full {
		n.env.Progress.SetCondition("notifications", "")
		return
	}
	text := queueFull(usage) + "; the whole table is read every " + queueReread.String() + " meanwhile"
	n.log.Warn(text)
	n.env.Progress.SetCondition("notifications", text)
}

// tableTraces is what changes leave behind besides notifications.
type tableTraces struct {
	queue   float64 // how full the server's queue is, of 1
	files   string  // which hold the rows: others after a truncation or a rewriting
	changes int64   // rows inserted, updated and deleted, by the statistics: late, and with those rolled back
}

// full says whether triggers may have kept silent because of the queue, or are near it.
func (s tableTraces) full() bool { return s.queue > postgres.NotifyQueueLimit }

// doubt says why the whole table must be read, after the earlier traces; "" where it need not. read is the time since it
// was last asked for, heard that since the last notification.
func (s tableTraces) doubt(was tableTraces, read, heard time.Duration) string {
	switch {
	case s.full() && read >= queueReread:
		return queueFull(s.queue)
	case was.full() && !s.full():
		return "the server's queue of notifications was too full, and is not any more"
	case s.files != was.files:
		return "the table was truncated or rewritten"
	case s.changes != was.changes && heard > statsDelay && read >= statsReread:
		return "the statistics tell of changes that no notification told of"
	case read >= silentReread:
		return "once an hour, for changes that bypassed the triggers"
	}
	return ""
}

// check compares the catalog with the copied shape and the triggers with what they should be, and gathers traces.
func (n *notify) check(ctx context.Context) (s tableTraces, err error) {
	err = n.side.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		now, err := postgres.TableFingerprint(ctx, conn, n.env.Table)
		if err != nil {
			return keepsState(err)
		}
		if now != n.tab.Fingerprint {
			return &source.ResyncError{Reason: fmt.Sprintf("the definition of table %s changed", n.tab.Name())}
		}
		if err := n.triggered(ctx, conn); err != nil {
			return err
		}
		err = conn.QueryRow(ctx, `
			SELECT pg_catalog.pg_notification_queue_usage(),
				COALESCE(string_agg(pg_catalog.pg_relation_filenode(oid)::text, ' ' ORDER BY oid), ''),
				COALESCE(sum(pg_catalog.pg_stat_get_tuples_inserted(oid) + pg_catalog.pg_stat_get_tuples_updated(oid)
					+ pg_catalog.pg_stat_get_tuples_deleted(oid)), 0)::bigint
			FROM (SELECT $1::oid UNION SELECT relid FROM pg_catalog.pg_partition_tree($1::oid::regclass)) t(oid)`,
			n.tab.OID).Scan(&s.queue, &s.files, &s.changes)
		if err != nil {
			return fmt.Errorf("look for traces of changes of table %s: %w", n.tab.Name(), err)
		}
		return nil
	})
	return s, err
}
