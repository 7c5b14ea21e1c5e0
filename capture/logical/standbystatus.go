package logical

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"

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
// Confirmed is what has been applied to the Table in memory, not what is in the file. The slot is temporary, so after a
// restart the table is copied again whatever was confirmed, and holding a position back would only retain WAL: a server
// that shuts down waits until its walsenders have had everything confirmed.
//
// Once the stream has begun, standby is the only writer on the connection: the receiver reads, and no command is possible.
// So a status message reaches the server even while the receiver applies a transaction for longer than wal_sender_timeout.
type standby struct {
	conn     *pgconn.PgConn
	reads    *postgres.ReadClock // of conn
	timeouts source.Timeouts
	interval time.Duration // time between two status messages

	applied atomic.Uint64 // LSN up to which the stream is in the Table

	// sendMu serializes status messages, and closing the connection: the end of a message that is cut off would be read as
	// the start of the next one.
	sendMu  sync.Mutex
	sentLSN pglogrepl.LSN // in the last status message
	sentAt  time.Time

	// closeMu guards closed together with the connection's write deadline. close sets both. A sender that finds closed
	// unset has its own deadline in place before close can set one, so close always interrupts a write that is under way.
	closeMu sync.Mutex
	closed  bool
}

func newStandby(conn *pgconn.PgConn, reads *postgres.ReadClock, timeouts source.Timeouts) *standby {
	// The server asks for a reply after half of wal_sender_timeout. A quarter leaves time for a message to arrive late.
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

// close closes the connection, and with it the slot. A status message that waits for the server to read is cut off.
func (s *standby) close() {
	s.closeMu.Lock()
	s.closed = true
	_ = s.conn.Conn().SetWriteDeadline(time.Unix(1, 0))
	s.closeMu.Unlock()
	s.sendMu.Lock() // no message is under way from here on, and none begins
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

// setAppliedLSN records that the stream is applied up to lsn. Only one goroutine may call it.
func (s *standby) setAppliedLSN(lsn pglogrepl.LSN) {
	s.applied.Store(max(s.applied.Load(), uint64(lsn)))
}

// sendStatus confirms the applied position. requestReply asks the server for a keepalive at once. Without force, a message
// that confirms nothing new is sent only now and then: a server that has sent all it has asks for a reply as soon as it
// gets an old position, so replying to each request at once would be a busy loop.
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
	// Flush and apply positions are left out; the library then sends the write position for them.
	err := pglogrepl.SendStandbyStatusUpdate(context.Background(), s.conn, pglogrepl.StandbyStatusUpdate{WALWritePosition: lsn, ReplyRequested: requestReply})
	if err != nil {
		return fmt.Errorf("send the standby status: %w", err)
	}
	s.sentLSN, s.sentAt = lsn, time.Now()
	return nil
}

// statusLoop sends status messages until ctx ends: after progress, and at each interval in any case. Now and then it asks
// for a keepalive. The reply proves that the server is alive, whose silence is an error here; and it makes the receiver log
// the summary of earlier commits, for which hasSummary reports the need.
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
