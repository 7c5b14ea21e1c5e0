package logical

import (
	"errors"
	"testing"
	"time"

	"capture/capture/sourcetest"
	"capture/internal/faultproxy"
	"capture/internal/pgserver"
)

// TestSlotOfKilledClient checks that the server drops the slot of a killed process even if the creation of the slot still
// waits for an open transaction. The test cuts the connection without a request to cancel the creation, as if the process
// was killed.
func TestSlotOfKilledClient(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	if s.VersionNum() < 140000 {
		t.Skip("this version cannot test connections while a statement waits")
	}
	conn := sourcetest.Connect(t, s.URL("postgres"))
	conn.MustExec(sourcetest.Votes)
	open := sourcetest.Connect(t, s.URL("postgres"))
	open.MustExec("BEGIN; INSERT INTO votes (comment) VALUES ('open')")
	proxy, err := faultproxy.New(s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(proxy.Close)
	// With this timeout, slot.create makes the server check the connection every 2.5 s. The request for the slot must reach
	// the server before the first check is due. Otherwise the check comes due while the session is idle, and the server makes
	// no further checks. 2.5 s are long enough even on a busy machine.
	source := slotSource(t, proxy.URL("postgres"), 30*time.Second)
	created := make(chan error, 1)
	go func() {
		_, err := source.slot.create(t.Context(), source.standby.conn)
		created <- err
	}()
	sourcetest.WaitFor(t, "the creation of the slot waits", func() error {
		if len(created) > 0 {
			t.Fatalf("the creation of the slot did not wait: %v", <-created)
		}
		return countSlots(t, conn, source, 1)
	})
	proxy.Refuse()
	proxy.Cut()
	if err := <-created; err == nil {
		t.Fatal("the slot was created")
	}
	sourcetest.WaitFor(t, "the server drops the slot", func() error { return countSlots(t, conn, source, 0) })
	open.MustExec("ROLLBACK")
}

// TestSlotOfFrozenClient checks that the server drops the slot of a frozen process. The test sends nothing after the
// creation of the slot, as if the process was frozen.
func TestSlotOfFrozenClient(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := sourcetest.Connect(t, url)
	conn.MustExec(sourcetest.Votes)
	source := slotSource(t, url, 2*time.Second)
	if _, err := source.slot.create(t.Context(), source.standby.conn); err != nil {
		t.Fatal(err)
	}
	sourcetest.WaitFor(t, "the server drops the slot", func() error { return countSlots(t, conn, source, 0) })
}

// slotSource returns a Source that is connected for replication, with the given timeout for a frozen process.
func slotSource(t *testing.T, url string, frozenClient time.Duration) *Source {
	t.Helper()
	env := newEnv(t, url)
	env.Timeouts.FrozenClient = frozenClient
	s := New(env)
	t.Cleanup(s.queries.Close)
	if _, err := s.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.standby.close)
	return s
}

// countSlots returns an error unless the number of slots with the name of source's slot equals want.
func countSlots(t *testing.T, conn *sourcetest.Conn, source *Source, want int) error {
	var n int
	err := conn.QueryRow(t.Context(), "SELECT count(*) FROM pg_replication_slots WHERE slot_name = $1", source.slot.name).Scan(&n)
	if err == nil && n != want {
		err = errors.New("the number of slots is wrong")
	}
	return err
}
