package logical

import (
	"testing"

	"capture/internal/pgserver"
)

// TestSenderTimeoutIsSet checks that capture sets wal_sender_timeout for its replication connection if the server's setting
// turns the timeout off. Without a timeout, the slot of a frozen capture would stay.
func TestSenderTimeoutIsSet(t *testing.T) {
	t.Parallel()
	server := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"wal_sender_timeout": "0"}})
	s := New(newEnv(t, server.URL("postgres")))
	if _, err := s.connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer s.standby.close()
	if s.standby.interval != maxStatusInterval {
		t.Errorf("a standby status every %s", s.standby.interval)
	}
	got, err := s.standby.conn.Exec(t.Context(), "SHOW wal_sender_timeout").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	if text := string(got[0].Rows[0][0]); text != "1min" {
		t.Errorf("the session has a timeout of %s", text)
	}
}

// TestStatusMessagesEndWithConnection checks that sendStatus fails after the connection has been closed. A Barrier calls
// sendStatus in a loop, as the test does.
func TestStatusMessagesEndWithConnection(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	for range 20 {
		s := New(newEnv(t, url))
		if _, err := s.connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		sent, ended := make(chan struct{}, 1), make(chan struct{})
		go func() {
			defer close(ended)
			for s.standby.sendStatus(true, true) == nil {
				select {
				case sent <- struct{}{}:
				default:
				}
			}
		}()
		<-sent
		s.standby.close()
		<-ended
	}
}
