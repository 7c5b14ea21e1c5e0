package capture

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/postgres"
)

// watch looks regularly for what notifications do not tell: another shape, triggers that are gone or bypassed, a full
// queue. was is what there was before the first copy.
func (n *notify) watch(ctx context.Context, was tableTraces) error {
	read := time.Now() // when the whole table was last asked for from here
	return n.env.CheckLoop(ctx, func(ctx context.Context) error {
		is, err := n.check(ctx)
		if err != nil {
			return err
		}
		if why := is.doubt(was, time.Since(read), time.Since(n.heard.lastHeard())); why != "" {
			read = time.Now()
			n.heard.doubt(why)
		}
		if full := is.full(); full != was.full() {
			n.sayFull(full, is.queue)
		}
		was = is
		return nil
	})
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
			return source.WithFileNote(err)
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
