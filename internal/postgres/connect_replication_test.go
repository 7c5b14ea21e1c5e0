package postgres

import (
	"math"
	"testing"
	"time"
)

// TestLimitAbandonedWALSenderWithoutChecks makes the server refuse client_connection_check_interval, as systems do that cannot test
// connections. The timeout of a frozen client is set nevertheless.
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
