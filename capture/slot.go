package capture

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// slotStart is where a new slot's stream begins, and the name of the exported snapshot that shows the table as it was there.
// createSlot returns it once that snapshot is safe to read with: see awaitCommits.
type slotStart struct {
	lsn      pglogrepl.LSN
	snapshot string
}

// createSlot makes the temporary slot. That waits for the write transactions which are open: where they take long, a
// plain read gives a file meanwhile.
func (l *logical) createSlot(ctx context.Context, t *snapshot.Table, origin snapshot.Origin) (slotStart, error) {
	var id [4]byte
	_, _ = rand.Read(id[:]) // it never fails
	l.slot = "capture_" + hex.EncodeToString(id[:])
	type result struct {
		slot slotStart
		err  error
	}
	creating, cancel := context.WithCancel(ctx)
	reading, stopReading := context.WithCancel(ctx)
	made := make(chan result, 1)
	go func() {
		defer stopReading()
		slot, err := l.makeSlot(creating)
		made <- result{slot, err}
	}()
	defer func() {
		cancel()
		l.env.Progress.SetBlocked("")
	}()
	tick := time.NewTicker(tablecopy.WatchdogInterval)
	defer tick.Stop()
	read, said := time.Now().Add(slotPatience+4*l.trip), false
	var shown pglogrepl.LSN // all that the plain read saw was in the WAL before it
	for {
		select {
		case r := <-made:
			if r.err == nil && r.slot.lsn < shown { // it was made while the plain read went on, or word of it comes late
				r.err = &source.ResyncError{Reason: "the file has a later state by the plain read than the replication slot begins with", Backoff: true}
			}
			if r.err == nil {
				r.err = l.awaitCommits(ctx, r.slot.snapshot)
			}
			return r.slot, r.err
		case <-tick.C:
		}
		if !said && time.Now().Before(read) {
			continue // a question that is cut short takes its connection along
		}
		if err := l.side.Do(reading, l.checkSlot); err != nil && reading.Err() == nil {
			cancel()
			<-made
			return slotStart{}, err
		}
		if time.Now().Before(read) || reading.Err() != nil {
			continue
		}
		waits := l.waitsFor(reading)
		l.env.Progress.SetBlocked(waits)
		if !said {
			l.log.Warn("waiting to start the stream; a plain read gives a first file meanwhile", "why", waits)
			said = true
		}
		switch err := tablecopy.ReadTable(reading, l.env, origin.Source, t, l.checkSlot); {
		case err == nil:
			shown = l.present(ctx)
		case reading.Err() == nil:
			l.log.Warn("plain read failed", "error", err)
		}
		read = time.Now().Add(rereadEvery)
	}
}

// makeSlot makes it, and waits for as long as the server does.
func (l *logical) makeSlot(ctx context.Context) (slotStart, error) {
	made, err := pglogrepl.CreateReplicationSlot(ctx, l.repl, l.slot, "pgoutput", pglogrepl.CreateReplicationSlotOptions{
		Temporary: true, Mode: pglogrepl.LogicalReplication, SnapshotAction: "EXPORT_SNAPSHOT",
	})
	if err != nil {
		return slotStart{}, fmt.Errorf("create replication slot: %w", err)
	}
	lsn, err := pglogrepl.ParseLSN(made.ConsistentPoint)
	if err != nil {
		return slotStart{}, fmt.Errorf("create replication slot: %w", err)
	}
	return slotStart{lsn, made.SnapshotName}, nil
}

// present is the server's position now; the highest there is where it can't be had.
func (l *logical) present(ctx context.Context) (lsn pglogrepl.LSN) {
	err := l.side.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		lsn, err = postgres.LoadInsertLSN(ctx, conn)
		return err
	})
	if err != nil {
		return math.MaxUint64
	}
	return lsn
}

// checkSlot says, as an *source.ResyncError, that the slot which is being made or copied from is lost or holds back too much.
func (l *logical) checkSlot(ctx context.Context, conn *pgx.Conn) error {
	if err := l.slotHolds(ctx, conn); !errors.Is(err, errNoSlot) {
		return err
	}
	return nil // it is not there yet; once it is, its connection tells when it goes
}

// waitsFor says, for people, which transactions keep the slot from being made.
func (l *logical) waitsFor(ctx context.Context) string {
	text := "write transactions that were open at the start must end first"
	err := l.side.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		var list *string
		err := conn.QueryRow(ctx, `
			SELECT string_agg(format('pid %s (%s, %s, since %s)', pid, coalesce(usename::text, '?'), coalesce(nullif(state, ''), 'state not visible'),
				to_char(xact_start, 'HH24:MI:SS')), ', ' ORDER BY xact_start)
			FROM (SELECT * FROM pg_catalog.pg_stat_activity WHERE backend_xid IS NOT NULL AND pid <> pg_backend_pid()
				ORDER BY xact_start LIMIT 5) a`).Scan(&list)
		if err == nil && list != nil {
			text += ": " + *list
		}
		return err
	})
	if err != nil {
		l.log.Debug("which transactions are open is not known", "error", err)
	}
	return text
}

// copy reads the table as the slot's exported snapshot shows it. The snapshot lives until the replication connection's
// next command.
func (l *logical) copy(ctx context.Context, t *snapshot.Table, slot slotStart, origin snapshot.Origin) (*rowjson.Encoder, error) {
	l.env.Progress.SetCopying()
	enc, err := tablecopy.NewEncoder(l.tab, l.srv)
	if err != nil {
		return nil, err
	}
	var conn *pgx.Conn
	err = l.talk(ctx, func(ctx context.Context) error {
		if conn, err = postgres.Connect(ctx, postgres.WithReadBuffer(l.traffic.Attach(l.env.Database))); err != nil {
			return err
		}
		if err := tablecopy.ImportSnapshot(ctx, l.env, conn, l.tab, slot.snapshot); err != nil {
			return fmt.Errorf("copy table %s: %w", l.tab.Name(), err)
		}
		l.beaten = time.Now()
		return l.do(ctx, fmt.Sprintf("BEGIN; SET LOCAL idle_in_transaction_session_timeout = %d", l.env.Timeouts.FrozenClient.Milliseconds()))
	})
	if conn != nil {
		defer postgres.CloseNow(conn.PgConn())
	}
	if err != nil {
		return nil, err
	}
	c := tablecopy.NewCopier(l.env, conn, &l.traffic, l.tab, l.srv, func(copying context.Context, conn *pgx.Conn) error {
		return l.attend(ctx, copying, conn)
	})
	if _, err := c.Copy(ctx, t, origin, snapshot.Position{LSN: slot.lsn}, "lsn", postgres.FormatLSN(slot.lsn)); err != nil {
		return nil, err
	}
	l.applied.Store(uint64(slot.lsn))
	l.env.Progress.SetAppliedLSN(slot.lsn, 0)
	return enc, nil
}

// attend is what a copy's attendant does for the slot. It says a word on the replication connection, which is in a
// transaction (without a snapshot) during the copy, so that the server may drop the slot of a capture that is frozen; in
// the stream wal_sender_timeout does that. The end of the copy must not cut the word off: the connection is needed yet.
func (l *logical) attend(ctx, copying context.Context, conn *pgx.Conn) error {
	if time.Since(l.beaten) > l.env.Timeouts.FrozenClient/6 {
		l.beaten = time.Now()
		if err := l.talk(ctx, func(ctx context.Context) error { return l.do(ctx, "SELECT 1") }); err != nil {
			return &source.ResyncError{Reason: "the replication slot is gone: " + err.Error(), Backoff: true}
		}
	}
	return l.slotHolds(copying, conn)
}
