package postgres

import (
	"math"
	"testing"
	"time"
)

// TestLimitAbandonedWALSenderWithoutChecks checks that LimitAbandonedWALSender sets the timeout for a frozen client even if
// the server refuses client_connection_check_interval. A server refuses this setting if its operating system cannot test
// connections.
func TestLimitAbandonedWALSenderWithoutChecks(t *testing.T) {
	t.Parallel()
	_, url := database(t)
	cfg, err := ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	repl, err := ConnectReplication(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { CloseNow(repl) })
	const refused = math.MaxInt64 // more milliseconds than the setting can hold
	if err := LimitAbandonedWALSender(testContext(t), repl, 90*time.Second, refused); err != nil {
		t.Fatal(err)
	}
	results, err := repl.Exec(testContext(t), "SHOW idle_in_transaction_session_timeout").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if got := string(results[0].Rows[0][0]); got != "90s" {
		t.Errorf("the timeout is %s", got)
	}
}
