package logical

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/postgres"
)

// slot is capture's temporary replication slot. The server drops it when the replication connection ends.
type slot struct {
	name string
	env  *source.Env
}

var (
	errNoSlot     = errors.New("the replication slot is gone")
	errNoFreeSlot = errors.New("all replication slots are in use")
)

// newSlot returns a slot with a random name. The server does not have it yet.
func newSlot(env *source.Env) *slot {
	var id [4]byte
	_, _ = rand.Read(id[:]) // never fails
	return &slot{name: "capture_" + hex.EncodeToString(id[:]), env: env}
}

// slotSnapshot is the start of a new slot's stream. The exported snapshot shows the table as of the consistent point. The
// snapshot ends with the next command on the replication connection. Nobody may read a table with the exported snapshot before
// awaitCommits has returned.
type slotSnapshot struct {
	lsn  pglogrepl.LSN // consistent point
	name string        // name of the exported snapshot
}

// connectionChecks is how many times the server tests the connection within tablecopy.FrozenClientTimeout. With the default
// timeout, it tests every 10 s. This costs little, and the server soon drops the slot if capture is killed.
const connectionChecks = 12

// create creates the slot. The server first waits until all open write transactions have ended. Each transaction is therefore
// either entirely in the snapshot or entirely in the stream.
//
// If this process is killed while the server waits, the server (since version 14) ends the session at its next test of the
// connection. Without these tests, the slot would retain WAL until the transactions have ended, and each restart of capture
// would leave another slot behind. If this process is frozen, tablecopy.FrozenClientTimeout begins when the transactions have
// ended. At the end of this timeout, the server ends the session. Without this timeout, the slot would retain WAL without
// limit.
func (s *slot) create(ctx context.Context, conn *pgconn.PgConn) (slotSnapshot, error) {
	frozenTimeout := tablecopy.FrozenClientTimeout(s.env)
	if err := postgres.LimitAbandonedWALSender(ctx, conn, frozenTimeout, frozenTimeout/connectionChecks); err != nil {
		return slotSnapshot{}, postgres.Explain(fmt.Errorf("create replication slot: %w", err))
	}
	result, err := pglogrepl.CreateReplicationSlot(ctx, conn, s.name, "pgoutput", pglogrepl.CreateReplicationSlotOptions{
		Temporary: true, Mode: pglogrepl.LogicalReplication, SnapshotAction: "EXPORT_SNAPSHOT",
	})
	if err != nil {
		return slotSnapshot{}, postgres.Explain(fmt.Errorf("create replication slot: %w", err))
	}
	lsn, err := pglogrepl.ParseLSN(result.ConsistentPoint)
	if err != nil {
		return slotSnapshot{}, fmt.Errorf("create replication slot: %w", err)
	}
	return slotSnapshot{lsn, result.SnapshotName}, nil
}

// probeTimeout limits the time that probe waits for its slot.
const probeTimeout = 3 * time.Second

// probe creates the slot as a test. If the server refuses the slot, probe returns the server's error. If the slot has to wait
// for write transactions, probe gives up and returns false without an error, and the connection is closed. The slot ends with
// the connection.
func (s *slot) probe(ctx context.Context, conn *pgconn.PgConn) (created bool, err error) {
	waiting, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	_, err = s.create(waiting, conn)
	if err != nil && waiting.Err() != nil && ctx.Err() == nil {
		return false, nil
	}
	return err == nil, err
}

// check returns a *source.ResyncError if the slot is gone, was invalidated, or retains more WAL than it may.
func (s *slot) check(ctx context.Context, conn *pgx.Conn) error {
	err := s.checkRetainedWAL(ctx, conn)
	if errors.Is(err, errNoSlot) {
		return &source.ResyncError{Reason: err.Error(), Backoff: true, Intact: true}
	}
	return err
}

// checkUncreated is like check, but for a slot whose creation may not have ended, so it accepts a missing slot. If the server
// drops the slot because the replication connection ends, create returns an error. checkUncreated therefore need not detect
// this case.
func (s *slot) checkUncreated(ctx context.Context, conn *pgx.Conn) error {
	err := s.checkRetainedWAL(ctx, conn)
	if errors.Is(err, errNoSlot) {
		return nil
	}
	return err
}

// checkRetainedWAL reports to Progress how much WAL the slot retains. It returns errNoSlot if the slot does not exist. It
// returns a *source.ResyncError if the slot retains more than MaxWAL, or if the server has invalidated the slot.
func (s *slot) checkRetainedWAL(ctx context.Context, conn *pgx.Conn) error {
	var retained *int64
	var status string
	err := conn.QueryRow(ctx, `
		SELECT pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_lsn(), restart_lsn)::bigint, coalesce(wal_status, '')
		FROM pg_catalog.pg_replication_slots WHERE slot_name = $1`, s.name).Scan(&retained, &status)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errNoSlot
	case err != nil:
		return fmt.Errorf("query the replication slot: %w", err)
	case status == "lost":
		return &source.ResyncError{Reason: "the server removed WAL that the replication slot needs (max_slot_wal_keep_size)", Backoff: true, Intact: true}
	case retained == nil:
		return nil // the slot is being created
	}
	s.env.Progress.SetRetainedWAL(*retained)
	if limit := s.env.MaxWAL; *retained > limit && limit > 0 {
		return &source.ResyncError{Reason: fmt.Sprintf("the replication slot retains %d bytes of WAL, more than --max-wal allows (%d)", *retained, limit), Backoff: true, Intact: true}
	}
	return nil
}

// blockingTransactions returns a text for the operator that lists the transactions that block the creation of the slot.
func blockingTransactions(ctx context.Context, conn *pgx.Conn) (string, error) {
	text := "write transactions that were open at the start must end first"
	open, err := postgres.LoadOpenTransactions(ctx, conn)
	if err != nil {
		return text, err
	}
	if list := open.String(); list != "" {
		text += ": " + list
	}
	return text, nil
}
