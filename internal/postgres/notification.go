package postgres

import (
	"encoding/json"
	"fmt"
)

// NotifyQueueLimit is the fraction of the server's notification queue (pg_notification_queue_usage) above which capture
// reads the whole table instead of relying on notifications. The triggers stop sending at twice this value, so a full queue
// never makes a commit of the application fail.
const NotifyQueueLimit = 0.25

// Channel returns the channel on which the table's triggers notify.
func (t *Table) Channel() string { return objectName(t.Name()) }

// ParseNotification parses a notification's payload. It returns the keys of the changed rows. Each key is a list of its
// columns' text forms, in the key's order, as in [Table.SelectList]. If all is true, keys is nil and the whole table must be
// read again.
func ParseNotification(payload string) (keys [][]string, all bool, err error) {
	if payload == "*" {
		return nil, true, nil
	}
	if err := json.Unmarshal([]byte(payload), &keys); err != nil {
		return nil, false, fmt.Errorf("parse a notification of %d bytes: %w", len(payload), err)
	}
	return keys, false, nil
}
