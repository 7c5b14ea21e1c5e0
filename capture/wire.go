package capture

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgproto3"

	"capture/capture/source"
	"capture/internal/postgres"
	"capture/snapshot"
)

// read applies messages until the connection fails.
func (l *logical) read(s *stream, lines *source.TxnLogger) error {
	for {
		msg, err := l.repl.ReceiveMessage(context.Background())
		if err != nil {
			return fmt.Errorf("read the stream: %w", err)
		}
		switch msg := msg.(type) {
		case *pgproto3.CopyData:
			if len(msg.Data) == 0 {
				return fmt.Errorf("read the stream: %w", errCut)
			}
			switch msg.Data[0] {
			case pglogrepl.XLogDataByteID:
				err = l.data(s, msg.Data[1:])
			case pglogrepl.PrimaryKeepaliveMessageByteID:
				lines.Refill(time.Now())
				err = l.keepalive(s, msg.Data[1:])
			}
			if err != nil {
				return err
			}
		case *pgproto3.ErrorResponse:
			return fmt.Errorf("read the stream: %w", pgconn.ErrorResponseToPgError(msg))
		case *pgproto3.CopyDone, *pgproto3.CommandComplete:
			return errors.New("read the stream: the server ended it (it is shutting down)")
		}
	}
}

func (l *logical) data(s *stream, b []byte) error {
	x, err := pglogrepl.ParseXLogData(b)
	if err != nil {
		return fmt.Errorf("read the stream: %w", err)
	}
	l.env.Progress.SetServerLSN(x.ServerWALEnd)
	if err := s.handle(x.WALData); err != nil {
		return err
	}
	if len(x.WALData) > 0 && x.WALData[0] == 'C' {
		l.advance(s.tx.LSN)
	}
	return nil
}

// keepalive takes the server's position over where no transaction is open: nothing of the table lies before it.
func (l *logical) keepalive(s *stream, b []byte) error {
	k, err := pglogrepl.ParsePrimaryKeepaliveMessage(b)
	if err != nil {
		return fmt.Errorf("read the stream: %w", err)
	}
	l.env.Progress.SetServerLSN(k.ServerWALEnd)
	if !s.in {
		if uint64(k.ServerWALEnd) > l.applied.Load() {
			s.table.Advance(snapshot.Position{LSN: k.ServerWALEnd})
			l.advance(k.ServerWALEnd)
		}
		l.commitLag = 0
		l.env.Progress.SetAppliedLSN(pglogrepl.LSN(l.applied.Load()), 0)
	}
	if k.ReplyRequested {
		return l.tell(false, false)
	}
	return nil
}

func (l *logical) advance(lsn pglogrepl.LSN) {
	if uint64(lsn) > l.applied.Load() {
		l.applied.Store(uint64(lsn))
		l.env.Progress.SetAppliedLSN(lsn, l.commitLag)
	}
}

// tell sends our position. Without force, an answer that brings nothing new waits: answering each request at once with
// an old position makes the server ask again at once.
func (l *logical) tell(force, ask bool) error {
	l.write.Lock()
	defer l.write.Unlock()
	if l.hungUp {
		return source.ErrNotFollowing
	}
	at := pglogrepl.LSN(l.applied.Load())
	if !force && at == l.told && time.Since(l.toldAt) < answerAfter {
		return nil
	}
	_ = l.repl.Conn().SetWriteDeadline(time.Now().Add(l.env.Timeouts.Idle))
	err := pglogrepl.SendStandbyStatusUpdate(context.Background(), l.repl, pglogrepl.StandbyStatusUpdate{WALWritePosition: at, ReplyRequested: ask})
	if err != nil {
		return fmt.Errorf("send the position: %w", err)
	}
	l.told, l.toldAt = at, time.Now()
	return nil
}

// report sends our position regularly, from its own goroutine, so that the server hears of us while a transaction is
// being applied; and asks for a word now and then, so that silence means something, and what is folded is logged.
func (l *logical) report(ctx context.Context, lines *source.TxnLogger) error {
	tick := time.NewTicker(min(answerAfter, l.every/2))
	defer tick.Stop()
	var told, asked time.Time
	last := pglogrepl.LSN(0)
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-l.broken:
			return err
		case now := <-tick.C:
			if quiet := time.Since(l.traffic.LastRead()); quiet > l.env.Timeouts.Idle {
				return fmt.Errorf("read the stream: %w", postgres.IdleError(quiet))
			}
			at := pglogrepl.LSN(l.applied.Load())
			ask := now.Sub(asked) >= l.env.Timeouts.Ping || lines.HasSummary() && now.Sub(asked) >= time.Second
			if !ask && at == last && now.Sub(told) < l.every {
				continue
			}
			if err := l.tell(true, ask); err != nil {
				return err
			}
			told, last = now, at
			if ask {
				asked = now
			}
		}
	}
}
