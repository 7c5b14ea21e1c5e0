package logical

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"capture/capture/source"
	"capture/internal/pgoutput"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// receiver reads the replication stream and passes each message of pgoutput to the applier. After a commit or a keepalive, it
// reports progress and advances the applied position. The standby confirms this position to the server.
//
// All of this happens on one goroutine. No other goroutine reads from the connection or writes to the Table. A message
// aliases the connection's read buffer, so it is valid only until the next message is received.
type receiver struct {
	env     *source.Env
	standby *standby
	applier *applier
	encoder *rowjson.Encoder
	dst     *snapshot.Table
	txns    *source.TxnLogger

	horizons *horizons

	commitLag time.Duration // age of the last commit when it was applied; 0 once the stream has caught up
}

// run receives and applies messages until ctx ends or the connection fails.
func (r *receiver) run(ctx context.Context) error {
	// ReceiveMessage does not get ctx, because pgconn would start and end a watch of ctx for each message. When ctx ends, a
	// read deadline in the past interrupts a waiting read instead. The deadline makes the connection unusable, but capture
	// closes the connection afterwards anyway.
	stop := context.AfterFunc(ctx, func() { _ = r.standby.conn.Conn().SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	defer r.txns.Flush()
	err := r.receiveLoop()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return err
}

func (r *receiver) receiveLoop() error {
	for {
		msg, err := r.standby.conn.ReceiveMessage(context.Background())
		if err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyData:
			if err := r.handleCopyData(msg.Data); err != nil {
				return err
			}
		case *pgproto3.ErrorResponse:
			return fmt.Errorf("read the stream: %w", pgconn.ErrorResponseToPgError(msg))
		case *pgproto3.CopyDone, *pgproto3.CommandComplete:
			return errors.New("read the stream: the server ended it (it is shutting down)")
		}
	}
}

// handleCopyData handles a message of the streaming replication protocol.
func (r *receiver) handleCopyData(data []byte) error {
	if len(data) == 0 {
		return fmt.Errorf("read the stream: %w", pgoutput.ErrTruncated)
	}
	switch data[0] {
	case pglogrepl.XLogDataByteID:
		return r.handleXLogData(data[1:])
	case pglogrepl.PrimaryKeepaliveMessageByteID:
		return r.handleKeepalive(data[1:])
	}
	return nil
}

func (r *receiver) handleXLogData(data []byte) error {
	x, err := pglogrepl.ParseXLogData(data)
	if err != nil {
		return fmt.Errorf("read the stream: %w", err)
	}
	r.env.Progress.SetServerLSN(x.ServerWALEnd)
	commit, err := r.applier.apply(x.WALData)
	if err != nil && !leavesRowsIntact(err) {
		r.dst.SetHorizon(nil) // earlier messages may have been wrong, too
	}
	if err != nil || commit == nil {
		return err
	}
	if commit.Changes() > 0 {
		r.recordCommit(commit)
	}
	// Confirm the end position of the commit record, which the Commit message contains. XLogData contains only the position of
	// a single change. The sum of this position and the length of the payload is not a WAL position.
	r.setApplied(commit.LSN)
	return nil
}

// recordCommit reports and logs a transaction that changed the table.
func (r *receiver) recordCommit(commit *source.TxnStats) {
	now := time.Now()
	r.commitLag = now.Sub(commit.CommitTime)
	r.env.Progress.RecordCommit(commit)
	r.txns.Add(commit, now)
	if r.encoder.Replaced() {
		r.env.WarnInvalidUTF8()
	}
}

// handleKeepalive advances the applied position to the server's position if no transaction is open. The server sends whole
// transactions in commit order. If no transaction is open, everything that the server has sent is applied, and the WAL below
// the server's position contains no other change of the table. If keepalives did not advance the position, an idle table in a
// busy database would retain an unlimited amount of WAL.
func (r *receiver) handleKeepalive(data []byte) error {
	k, err := pglogrepl.ParsePrimaryKeepaliveMessage(data)
	if err != nil {
		return fmt.Errorf("read the stream: %w", err)
	}
	r.txns.Refill(time.Now())
	r.env.Progress.SetServerLSN(k.ServerWALEnd)
	if !r.applier.inTxn {
		if k.ServerWALEnd > r.standby.appliedLSN() {
			r.dst.Advance(snapshot.Position{LSN: k.ServerWALEnd})
		}
		r.commitLag = 0
		r.setApplied(k.ServerWALEnd)
	}
	if k.ReplyRequested {
		return r.standby.sendStatus(false, false)
	}
	return nil
}

// setApplied advances the applied position to lsn. The Table must already hold everything up to lsn, because Barrier returns
// once the applied position has reached its target.
func (r *receiver) setApplied(lsn pglogrepl.LSN) {
	r.standby.setAppliedLSN(lsn)
	if h := r.horizons.passed(r.standby.appliedLSN()); h != nil {
		r.dst.SetHorizon(h)
	}
	r.env.Progress.SetAppliedLSN(r.standby.appliedLSN(), r.commitLag)
}

// leavesRowsIntact reports whether the rows in memory are certainly correct although a message could not be applied because of
// err. The rows are correct if a connection or a query failed or was interrupted, or if the spill file had no room. After any
// other error, the message or the rows may be wrong.
func leavesRowsIntact(err error) bool {
	var network net.Error
	var connect *pgconn.ConnectError
	var answer *pgconn.PgError
	return errors.As(err, &network) || errors.As(err, &connect) || errors.As(err, &answer) || errors.Is(err, io.EOF) ||
		errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, context.Canceled) || errors.Is(err, snapshot.ErrNoRoom)
}
