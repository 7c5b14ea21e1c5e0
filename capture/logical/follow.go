package logical

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/guard"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// Follow implements source.Source.
func (s *Source) Follow(ctx context.Context, t *snapshot.Table) error {
	defer s.queries.Close()
	defer close(s.ended)
	origin, err := s.open(ctx)
	if err != nil {
		return err
	}
	defer s.standby.close()
	if err := s.loadRows(ctx, t); err != nil {
		return err
	}
	start, err := s.createSlotOrPlainRead(ctx, t, origin)
	if err != nil {
		return err
	}
	encoder, err := s.copyTable(ctx, t, start, origin)
	if err != nil {
		return err
	}
	return s.stream(ctx, t, encoder)
}

// loadRows loads the rows that an earlier run left in the file, if it can. It runs before the slot exists, because the slot
// would retain WAL in the meantime.
func (s *Source) loadRows(ctx context.Context, t *snapshot.Table) error {
	if !s.env.NeedsRows(t) {
		return nil
	}
	var place *snapshot.Place
	err := s.queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		place, err = tablecopy.LoadPlace(ctx, conn, s.table, &s.server)
		return err
	})
	if err != nil {
		return err
	}
	s.env.LoadRows(ctx, t, s.table.Shape, place)
	return ctx.Err()
}

// stream applies the replication stream until stop is done, the connection fails, or a check or [Source.Barrier] finds that the
// table must be loaded again. When stop is done, the checks end first. The receiver and the standby keep running while
// advanceHorizon runs.
func (s *Source) stream(stop context.Context, t *snapshot.Table, encoder *rowjson.Encoder) error {
	if err := s.startReplication(stop); err != nil {
		return err
	}
	ctx, endStream := context.WithCancelCause(context.WithoutCancel(stop))
	s.endStream = endStream
	defer endStream(nil)
	g, ctx := errgroup.WithContext(ctx)
	checking, endChecks := context.WithCancel(ctx) // ends as soon as stop ends, because a check must not delay the end of capture
	defer context.AfterFunc(stop, endChecks)()
	generated := newServerValues(ctx, s.queries, s.table)
	encoder.Server = generated.encode
	r := &receiver{
		env: s.env, standby: s.standby, dst: t, encoder: encoder,
		applier: newApplier(t, s.table, encoder, generated), txns: source.NewTxnLogger(s.log, s.table.Shape),
		horizons: &s.horizons,
	}
	counter := &rowCounter{env: s.env, table: s.table, dst: t, barrier: s.Barrier}
	s.env.Progress.SetFollowing(&s.reads)
	s.log.Info("following", "table", s.table.Name().String(), "source", "logical", "slot", s.slot.name,
		"lsn", postgres.FormatLSN(s.standby.appliedLSN()))
	start := func(task string, f func() error) {
		g.Go(func() error {
			err := guard.Run(s.log, task, f)
			s.noteDoubt(err)
			return err
		})
	}
	start("check the table", func() error { return s.env.CheckLoop(checking, s.check) })
	start("count the rows", func() error { return counter.run(checking) })
	start("send the standby status", func() error { return s.standby.statusLoop(ctx, r.txns.HasSummary) })
	start("apply the stream", func() error { return r.run(ctx) })
	start("end the stream", func() error {
		select {
		case <-ctx.Done():
			return nil
		case <-stop.Done():
		}
		cause := context.Cause(stop)
		resync := (*source.ResyncError)(nil)
		if errors.As(cause, &resync) {
			return cause
		}
		if err := s.advanceHorizon(ctx); errors.As(err, &resync) {
			return err
		} else if err != nil {
			s.log.Debug("the horizon was not advanced before the stop", "error", err)
		}
		return cause
	})
	err := g.Wait()
	if s.doubt.Load() {
		t.SetHorizon(nil)
	}
	return err
}

// startReplication makes the server send the stream, which begins at the slot's consistent point.
func (s *Source) startReplication(ctx context.Context) error {
	args := []string{"proto_version '1'", "publication_names " + postgres.QuoteReplicationString(postgres.QuoteIdentifier(s.publication.name))}
	return s.withIdleTimeout(ctx, func(ctx context.Context) error {
		if err := s.standby.exec(ctx, "COMMIT"); err != nil { // ends the transaction that importSnapshot began
			return err
		}
		err := pglogrepl.StartReplication(ctx, s.standby.conn, s.slot.name, 0, pglogrepl.StartReplicationOptions{PluginArgs: args})
		if err != nil {
			return fmt.Errorf("start replication: %w", err)
		}
		return nil
	})
}

// check returns a *source.ResyncError if the table, its publication or the slot has changed in a way that the stream does
// not show. Otherwise, check proposes a new horizon, which is as recent as the check itself. If the stream has not passed
// all proposed horizons, check requests a keepalive: on an idle server, nothing else would soon advance the applied
// position.
func (s *Source) check(ctx context.Context) error {
	err := s.queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
		if err := s.env.WithdrawHarmful(ctx, conn, s.table.Name()); err != nil {
			return err
		}
		if err := s.proposeHorizon(ctx, conn); err != nil {
			return err
		}
		if err := s.checkStandbys(ctx, conn); err != nil {
			return err
		}
		return s.slot.check(ctx, conn)
	})
	if err == nil && s.horizons.awaited() > 0 {
		_ = s.standby.sendStatus(true, true) // ignore the error: it means that the connection is broken, which the receiver reports
	}
	return err
}

// advanceHorizon moves the horizon past all transactions that have ended, if the server answers within Timeouts.Stop. It is
// called when capture stops. Without this call, the horizon could be older than a change of many rows just before the stop,
// and the next run would transfer these rows again.
//
// If the answer to the last regular check is overdue, the server probably hangs. advanceHorizon then returns immediately.
func (s *Source) advanceHorizon(ctx context.Context) error {
	if time.Since(s.queries.LastRead()) > s.env.Timeouts.Check+s.env.Timeouts.Stop {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.env.Timeouts.Stop)
	defer cancel()
	if err := s.queries.Do(ctx, s.proposeHorizon); err != nil {
		return err
	}
	return s.awaitStream(ctx, s.horizons.awaited(), func() bool { return s.horizons.awaited() == 0 })
}
