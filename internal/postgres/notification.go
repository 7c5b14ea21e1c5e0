package postgres

import (
	"context"
	"encoding/json"
	"fmt"
)

// notifyQueueLimit is the fraction of the server's notification queue (pg_notification_queue_usage) above which capture
// reads the whole table instead of relying on notifications. The triggers stop sending at twice this value, so a full queue
// never makes a commit of the application fail.
const notifyQueueLimit = 0.25

// NotificationQueue is the state of the server's queue of notifications.
type NotificationQueue struct {
	Usage float64 // used fraction of the queue, from 0 to 1; 0 if Hidden

	// Hidden is true if PUBLIC lacks the right to execute a function that the triggers call to find out the queue's usage.
	// If a role without this right writes to the table, the triggers send nothing.
	Hidden bool
}

// LoadNotificationQueue returns the state of the server's queue of notifications.
func LoadNotificationQueue(ctx context.Context, q Querier) (queue NotificationQueue, err error) {
	// A trigger runs with the rights of the role that writes to the table. capture cannot find out which roles these are: a role
	// that writes through a view needs no rights on the table. Therefore, check only the rights that PUBLIC gives to all roles.
	err = Pinned(q).QueryRow(ctx, `
		SELECT NOT (pg_catalog.has_function_privilege('public', 'pg_catalog.pg_notification_queue_usage()', 'EXECUTE')
			AND pg_catalog.has_function_privilege('public', 'pg_catalog.float8le(float8, float8)', 'EXECUTE'))`).Scan(&queue.Hidden)
	if err == nil && !queue.Hidden { // if Hidden is true, capture's own role may lack the right, too, and the query would fail
		err = Pinned(q).QueryRow(ctx, "SELECT pg_catalog.pg_notification_queue_usage()").Scan(&queue.Usage)
	}
	if err != nil {
		return queue, fmt.Errorf("query the usage of the notification queue: %w", err)
	}
	return queue, nil
}

// LosesNotifications reports whether the triggers may have dropped notifications.
func (q NotificationQueue) LosesNotifications() bool { return q.Hidden || q.Usage > notifyQueueLimit }

// Channel returns the channel on which the table's triggers notify.
func (t *Table) Channel() string { return objectName(t.Name()) }

// ParseNotification parses a notification's payload. It returns the keys of the changed rows. Each key is a list of its
// columns' text forms, in the key's order, as in [Table.SelectList]. If the whole table must be read again, ParseNotification
// returns no keys, and true as the second result.
func ParseNotification(payload string) (keys [][]string, all bool, err error) {
	if payload == "*" {
		return nil, true, nil
	}
	if err := json.Unmarshal([]byte(payload), &keys); err != nil {
		return nil, false, fmt.Errorf("parse a notification of %d bytes: %w", len(payload), err)
	}
	return keys, false, nil
}
