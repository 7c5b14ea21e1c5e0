package logical

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"capture/capture/source"
	"capture/internal/postgres"
)

const (
	maxStatusInterval = time.Second            // longest time between two standby status messages
	minReplyInterval  = 100 * time.Millisecond // shortest time between two replies that confirm nothing new
	summaryInterval   = time.Second            // time between requests for a keepalive while commits wait to be logged
)

// standby is the sending side of a replication connection. It confirms positions to the server by Standby status update
// messages ("Streaming Replication Protocol" in the PostgreSQL documentation).
//
// A standby confirms a change when the change has been applied to the Table in memory, even if the file does not contain it
// yet. The slot is temporary: after a restart, capture follows a new slot, and needs no WAL of the old one. A later
// confirmation would only retain more WAL. It would also delay a shutdown of the server, because the server waits until all
// sent WAL is confirmed.
//
// After the stream has begun, the connection accepts no commands. The receiver only reads from the connection, and only the
// standby writes to it. A status message therefore reaches the server even while the receiver applies a transaction for
// longer than wal_sender_timeout.
type standby struct {
	conn     *pgconn.PgConn
	reads    *postgres.ReadClock // records when data last arrived over conn
	timeouts source.Timeouts
	interval time.Duration // longest time between two status messages

	applied atomic.Uint64 // LSN up to which the stream has been applied to the Table

	// sendMu serializes status messages and the closing of the connection. If the writes of two messages were mixed, the server
	// could not tell where a message begins.
	sendMu  sync.Mutex
	sentLSN pglogrepl.LSN // position that the last status message confirmed
	sentAt  time.Time

	// closeMu guards closed and the connection's write deadline. Closing the standby sets both. sendStatus sets a deadline
	// only while closed is false. Otherwise it could replace the deadline with which closing interrupts a write.
	closeMu sync.Mutex
	closed  bool
}

func newStandby(conn *pgconn.PgConn, reads *postgres.ReadClock, timeouts source.Timeouts) *standby {
	// The server asks for a reply after half of wal_sender_timeout. An interval of a quarter of wal_sender_timeout leaves time
	// for a late message.
	interval := min(maxStatusInterval, max(postgres.WALSenderTimeout(conn)/4, 10*time.Millisecond))
	return &standby{conn: conn, reads: reads, timeouts: timeouts, interval: interval}
}

// exec runs a command on the connection, before the stream begins.
func (s *standby) exec(ctx context.Context, command string) error {
	if err := s.conn.Exec(ctx, command).Close(); err != nil {
		return fmt.Errorf("use the replication connection: %w", err)
	}
	return nil
}

// close closes the connection, which also drops the slot. It interrupts a status message that waits because the server does
// not read.
func (s *standby) close() {
	s.closeMu.Lock()
	s.closed = true
	_ = s.conn.Conn().SetWriteDeadline(time.Unix(1, 0))
	s.closeMu.Unlock()
	s.sendMu.Lock() // from here on, no message is being sent and none can begin
	defer s.sendMu.Unlock()
	_ = s.conn.Conn().SetWriteDeadline(time.Time{})
	postgres.CloseNow(s.conn)
}

// startWrite sets the write deadline for a message. It reports false if the connection is closed.
func (s *standby) startWrite() bool {
	s.closeMu.Lock()
	defer s.closeMu.Unlock()
	if !s.closed {
		_ = s.conn.Conn().SetWriteDeadline(time.Now().Add(s.timeouts.Idle))
	}
	return !s.closed
}

func (s *standby) appliedLSN() pglogrepl.LSN { return pglogrepl.LSN(s.applied.Load()) }

// setAppliedLSN records that the stream has been applied up to lsn. Only one goroutine may call it.
func (s *standby) setAppliedLSN(lsn pglogrepl.LSN) {
	s.applied.Store(max(s.applied.Load(), uint64(lsn)))
}

// sendStatus confirms the applied position. If requestReply is set, the message asks the server for an immediate keepalive. A
// message that confirms nothing new is sent at most once per minReplyInterval, unless force is set. Without this limit, there
// could be a busy loop, because a server that has sent all WAL answers each message with another request for a reply until all
// WAL is confirmed.
func (s *standby) sendStatus(force, requestReply bool) error {
	s.sendMu.Lock()
	defer s.sendMu.Unlock()
	lsn := s.appliedLSN()
	if !force && lsn == s.sentLSN && time.Since(s.sentAt) < minReplyInterval {
		return nil
	}
	if !s.startWrite() {
		return source.ErrNotFollowing
	}
	// pglogrepl.SendStandbyStatusUpdate would use pgx's buffer for messages. If the receiver's read fails, a goroutine of pgx
	// writes a Terminate message to the same buffer, possibly at the same time.
	message, err := encodeStatus(lsn, time.Now(), requestReply)
	if err == nil {
		_, err = s.conn.Conn().Write(message)
	}
	if err != nil {
		return fmt.Errorf("send the standby status: %w", err)
	}
	s.sentLSN, s.sentAt = lsn, time.Now()
	return nil
}

// encodeStatus returns a CopyData message with a Standby status update ("Streaming Replication Protocol"), which confirms that
// the WAL up to lsn has been written, flushed and applied.
func encodeStatus(lsn pglogrepl.LSN, now time.Time, requestReply bool) ([]byte, error) {
	update := []byte{pglogrepl.StandbyStatusUpdateByteID}
	for range 3 {
		update = binary.BigEndian.AppendUint64(update, uint64(lsn))
	}
	update = binary.BigEndian.AppendUint64(update, uint64(now.UnixMicro()-epoch.UnixMicro()))
	if requestReply {
		return (&pgproto3.CopyData{Data: append(update, 1)}).Encode(nil)
	}
	return (&pgproto3.CopyData{Data: append(update, 0)}).Encode(nil)
}

// epoch is the time from which the protocol counts microseconds.
var epoch = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)

// statusLoop sends a status message soon after the applied position has advanced, and at least once per s.interval, until ctx
// ends. Once per Timeouts.Ping, a message also requests a keepalive, because a server that is alive answers. If the server
// sends nothing for Timeouts.Idle, statusLoop returns an error. A keepalive also makes the receiver log the summary of earlier
// commits. Therefore, while hasSummary returns true, statusLoop requests a keepalive once per summaryInterval.
func (s *standby) statusLoop(ctx context.Context, hasSummary func() bool) error {
	tick := time.NewTicker(min(minReplyInterval, s.interval/2))
	defer tick.Stop()
	var (
		lastSent, lastRequest time.Time
		lastLSN               pglogrepl.LSN
	)
	for {
		var now time.Time
		select {
		case <-ctx.Done():
			return nil
		case now = <-tick.C:
		}
		if idle := time.Since(s.reads.LastRead()); idle > s.timeouts.Idle {
			return fmt.Errorf("read the stream: %w", postgres.IdleError(idle))
		}
		lsn, sinceRequest := s.appliedLSN(), now.Sub(lastRequest)
		requestReply := sinceRequest >= s.timeouts.Ping || hasSummary() && sinceRequest >= summaryInterval
		if !requestReply && lsn == lastLSN && now.Sub(lastSent) < s.interval {
			continue
		}
		if err := s.sendStatus(true, requestReply); err != nil {
			return err
		}
		lastSent, lastLSN = now, lsn
		if requestReply {
			lastRequest = now
		}
	}
}
