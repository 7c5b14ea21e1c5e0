package logical

import (
	"bytes"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pglogrepl"

	"capture/internal/pgserver"
)

// TestSenderTimeoutIsSet checks that capture sets wal_sender_timeout for its replication connection if the server's setting
// turns the timeout off. Without a timeout, the temporary slot of a frozen capture would stay.
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
		ended := sendStatusUntilError(t, s)
		s.standby.close()
		<-ended
	}
}

// sendStatusUntilError sends status messages in a goroutine until one fails. It returns after the first message. The channel is
// closed when the goroutine ends.
func sendStatusUntilError(t *testing.T, s *Source) (ended <-chan struct{}) {
	t.Helper()
	sent, done := make(chan struct{}, 1), make(chan struct{})
	go func() {
		defer close(done)
		for s.standby.sendStatus(true, true) == nil {
			select {
			case sent <- struct{}{}:
			default:
			}
		}
	}()
	select {
	case <-sent:
	case <-done:
		t.Fatal("no status message was sent")
	}
	return done
}

// TestStatusMessagesWhileReadFails checks that sendStatus can be called while the receiver's read fails and pgx therefore
// closes the connection. If both used the same memory without a lock, the race detector would fail the test.
func TestStatusMessagesWhileReadFails(t *testing.T) {
	t.Parallel()
	server := pgserver.Shared(t)
	for range 10 {
		url, endStream := relay(t, server.Addr())
		s := New(newEnv(t, url))
		if _, err := s.connect(t.Context()); err != nil {
			t.Fatal(err)
		}
		ended := sendStatusUntilError(t, s)
		endStream()
		if _, err := s.standby.conn.ReceiveMessage(t.Context()); err == nil {
			t.Error("the read did not fail")
		}
		<-ended
		s.standby.close()
	}
}

// relay forwards one connection to a server. It returns the URL of the server's database postgres through the relay. endStream
// ends the stream from the server to the client, but the client can still write.
func relay(t *testing.T, addr string) (url string, endStream func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client := make(chan *net.TCPConn, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		from, err := l.Accept()
		l.Close() // so the request to cancel, which needs a second connection, is refused
		if err != nil {
			return
		}
		defer from.Close()
		client <- from.(*net.TCPConn)
		to, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		wg.Go(func() { io.Copy(from, to) })
		defer to.Close()
		io.Copy(to, from)
	})
	t.Cleanup(func() {
		l.Close()
		wg.Wait()
	})
	return pgserver.URL(l.Addr().String(), "postgres"), func() {
		if err := (<-client).CloseWrite(); err != nil {
			t.Error(err)
		}
	}
}

// TestEncodeStatus compares a message with the documented layout.
func TestEncodeStatus(t *testing.T) {
	at := time.Date(2000, 1, 1, 0, 0, 1, 500_000, time.UTC)
	lsn := []byte{0, 0, 0, 0x16, 0xB3, 0x74, 0xD8, 0x48}
	want := append([]byte{'d', 0, 0, 0, 38, 'r'}, bytes.Repeat(lsn, 3)...)
	want = append(want, 0, 0, 0, 0, 0, 0xF, 0x44, 0x34) // 1,000,500 µs
	for _, reply := range []bool{false, true} {
		last := byte(0)
		if reply {
			last = 1
		}
		got, err := encodeStatus(pglogrepl.LSN(0x16B374D848), at, reply)
		if err != nil || !bytes.Equal(got, append(bytes.Clone(want), last)) {
			t.Errorf("reply %t: %v, %v", reply, got, err)
		}
	}
}
