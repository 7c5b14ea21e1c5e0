package notify

import (
	"strings"
	"testing"
	"time"

	"capture/internal/postgres"
)

// TestFullReadReasons checks when the regular checks request a full read of the table.
func TestFullReadReasons(t *testing.T) {
	t.Parallel()
	quiet := activity{queue: postgres.NotificationQueue{Usage: 0.01}, relationFiles: "1", changes: 10}
	full := activity{queue: postgres.NotificationQueue{Usage: 0.3}, relationFiles: "1", changes: 10}
	hidden := activity{queue: postgres.NotificationQueue{Hidden: true}, relationFiles: "1", changes: 10}
	changed := activity{queue: postgres.NotificationQueue{Usage: 0.01}, relationFiles: "1", changes: 11}
	for _, c := range []struct {
		name                     string
		before, now              activity
		sinceRead, sinceNotified time.Duration
		want                     string
	}{
		{"nothing", quiet, quiet, time.Minute, time.Hour, ""},
		{"an hour", quiet, quiet, time.Hour, 0, "once an hour"},
		{"a full queue", quiet, full, time.Minute, 0, "30 % full"},
		{"a queue that stays full", full, full, time.Second, 0, ""},
		{"a queue that stays full for long", full, full, time.Minute, 0, "30 % full"},
		{"a queue that has drained", full, quiet, time.Second, 0, "all notifications again"},
		{"a queue of unknown usage", quiet, hidden, time.Minute, 0, "or float8le("},
		{"a queue whose usage stays unknown", hidden, hidden, time.Second, 0, ""},
		{"a queue whose usage is known again", hidden, quiet, time.Second, 0, "all notifications again"},
		{"another file", quiet, activity{relationFiles: "2", changes: 10}, time.Second, 0, "truncated"},
		{"changes with a notification", quiet, changed, time.Hour - 1, time.Minute, ""},
		{"changes without a notification", quiet, changed, time.Hour - 1, 2 * time.Minute, "statistics"},
	} {
		got := c.now.fullReadReason(c.before, c.sinceRead, c.sinceNotified)
		if got != c.want && (c.want == "" || !strings.Contains(got, c.want)) {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// TestLossIsReportedOncePerReason checks that capture reports when a reason for lost notifications begins, changes or ends,
// but not when only the usage of the queue changes.
func TestLossIsReportedOncePerReason(t *testing.T) {
	t.Parallel()
	quiet, full, fuller := postgres.NotificationQueue{Usage: 0.01}, postgres.NotificationQueue{Usage: 0.3}, postgres.NotificationQueue{Usage: 0.4}
	hidden := postgres.NotificationQueue{Hidden: true}
	for _, c := range []struct {
		before, now postgres.NotificationQueue
		want        bool
	}{
		{quiet, quiet, false}, {quiet, full, true}, {quiet, hidden, true},
		{full, quiet, true}, {full, fuller, false}, {full, hidden, true},
		{hidden, quiet, true}, {hidden, full, true}, {hidden, hidden, false},
	} {
		if got := lossChanged(c.before, c.now); got != c.want {
			t.Errorf("from %+v to %+v: %t, want %t", c.before, c.now, got, c.want)
		}
	}
}
