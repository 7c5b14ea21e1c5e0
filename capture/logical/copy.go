package logical

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// copyTable brings t to the state that the slot's snapshot shows, by a resync or a copy. It returns the encoder for the
// stream's rows.
func (s *Source) copyTable(ctx context.Context, t *snapshot.Table, start slotSnapshot, origin snapshot.Origin) (*rowjson.Encoder, error) {
	s.env.Progress.SetCopying()
	encoder, err := tablecopy.NewEncoder(s.table, s.server, s.env.RowLimit())
	if err != nil {
		return nil, err
	}
	// The copy uses the open connection of s.queries, because a new session would first have to fill its catalog caches.
	conn, err := s.queries.Take(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { s.queries.Return(ctx, conn) }()
	if err := s.importSnapshot(ctx, conn, start); err != nil {
		return nil, err
	}
	alive := &slotKeeper{Source: s, ctx: ctx, lastPing: time.Now()}
	copier := tablecopy.NewCopier(s.env, conn, s.queries.Reads(), s.table, s.server, alive.check)
	horizon, err := copier.Update(ctx, t, origin, snapshot.Position{LSN: start.lsn}, "lsn", postgres.FormatLSN(start.lsn))
	if err != nil {
		return nil, err
	}
	// The server builds a slot's snapshot only from flushed WAL, so everything that t now contains is durable. A crash of the
	// server therefore cannot invalidate the horizon.
	t.SetHorizon(horizon)
	s.horizons.start(horizon)
	s.standby.setAppliedLSN(start.lsn)
	s.env.Progress.SetAppliedLSN(start.lsn, 0)
	return encoder, nil
}

// importSnapshot begins a transaction on conn that uses the slot's snapshot. The next command on the replication connection
// ends the exported snapshot, so importSnapshot uses this connection only after the import.
//
// importSnapshot then begins a transaction on the replication connection, for which slot.create has set a timeout for idle
// transactions. The slotKeeper pings this connection before the timeout ends. If this process freezes during the copy, the
// pings stop. The server then ends the connection and drops the slot.
func (s *Source) importSnapshot(ctx context.Context, conn *pgx.Conn, start slotSnapshot) error {
	err := s.queries.Reads().WithIdleTimeout(ctx, s.env.Timeouts.Idle, func(ctx context.Context) error {
		return tablecopy.ImportSnapshot(ctx, s.env, conn, s.table, start.name)
	})
	if err != nil {
		return fmt.Errorf("copy table %s: %w", s.table.Name(), err)
	}
	return s.withIdleTimeout(ctx, func(ctx context.Context) error {
		return s.standby.exec(ctx, "BEGIN")
	})
}

// slotKeeper keeps the slot alive during a copy.
type slotKeeper struct {
	*Source
	// ctx is the source's context. The copy's context could end during a ping, which would break the connection.
	ctx      context.Context
	lastPing time.Time
}

// check pings the replication connection if a ping is due, and checks the slot. The tablecopy.Watchdog calls it.
func (k *slotKeeper) check(copying context.Context, conn *pgx.Conn) error {
	if time.Since(k.lastPing) > tablecopy.FrozenClientTimeout(k.env)/6 {
		k.lastPing = time.Now()
		err := k.withIdleTimeout(k.ctx, func(ctx context.Context) error { return k.standby.exec(ctx, "SELECT 1") })
		if err != nil {
			return &source.ResyncError{Reason: "the replication slot is gone: " + err.Error(), Backoff: true, Intact: true}
		}
	}
	return k.slot.checkRetainedWAL(copying, conn)
}
