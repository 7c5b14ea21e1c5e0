package postgres

import (
	"encoding/json"
	"fmt"
)

// NotifyQueueLimit is how full the server's notification queue may get (pg_notification_queue_usage) before capture reads the
// whole table instead of trusting notifications. The triggers stop sending at twice this value, so a full queue never makes
// a commit of the application fail.
const NotifyQueueLimit = 0.25

// Channel returns the channel on which the table's triggers notify.
func (t *Table) Channel() string { return objectName(t.Name()) }

// ParseNotification parses a notification's payload. keys are the keys of the changed rows: each has the text forms of its
// columns as [Table.SelectList] prints them, in the key's order. all reports that the whole table must be read again instead.
func ParseNotification(payload string) (keys [][]string, all bool, err error) {
	if payload == "*" {
		return nil, true, nil
	}
	if err := json.Unmarshal([]byte(payload), &keys); err != nil {
		return nil, false, fmt.Errorf("parse a notification of %d bytes: %w", len(payload), err)
	}
	return keys, false, nil
}
