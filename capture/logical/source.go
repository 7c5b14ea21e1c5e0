// Package logical follows a table by logical replication, with a temporary slot and the output plugin pgoutput.
//
// A [Source] goes through the following steps. If a step fails, the daemon starts over with a new Source.
//
//	open      connect twice, for replication and for queries; find the publication, or create it if a slot can be created
//	slot      create a temporary slot, which exports the snapshot at which its stream begins
//	copy      copy the table as that snapshot shows it, or transfer what has changed since an earlier attempt
//	stream    receive the changes that follow the snapshot, apply them, and confirm them to the server
//
// Each part of the stream has one task. The receiver reads messages, advances the position and reports progress. The applier
// turns messages into writes to the snapshot.Table and returns commits. The standby owns the sending side of the connection
// and confirms positions. In addition, regular checks find what the stream does not show: changes of the catalog, the amount
// of WAL that the slot retains, and lost rows. They also read the horizons from which the next attempt can resync (horizon.go).
//
// The slot is temporary: the server drops it when the connection ends, so capture leaves nothing behind that retains WAL.
//
// A connection counts as broken if the server sends nothing for source.Timeouts.Idle, by default postgres.DefaultIdleTimeout.
//
// # Files
//
//   - source.go: Source and its steps
//   - slot.go, awaitcommits.go: the slot; the wait until the commits in its snapshot are complete
//   - plainread.go, copy.go: a first file while the creation of the slot waits; the copy
//   - stream.go, apply.go: the receiver; the applier
//   - displacedrows.go, omittedrows.go: two rows with one key in the middle of a transaction; rows that are too large
//   - servervalues.go: values that only the server can compute
//   - standbystatus.go, barrier.go: the standby; barriers
//   - catalogcheck.go, rowcount.go, horizon.go, physicalstandbys.go: the regular checks; horizon.go also has the check at a stop
package logical

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
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

// Source follows a table through a temporary replication slot.
type Source struct {
	env     *source.Env
	log     hclog.Logger
	queries *postgres.QueryConn
	reads   postgres.ReadClock // clock of reads from the replication connection
	slot    *slot
	ended   chan struct{} // closed when Follow has ended

	// open sets these fields.
	server      postgres.Server
	table       *postgres.Table
	publication publication
	standby     *standby
	roundTrip   time.Duration // measured round-trip time to the server

	horizons horizons
	doubt    atomic.Bool // whether the rows in memory may be wrong

	endStream context.CancelCauseFunc // ends the stream with an error; set once the stream begins
}

// New returns a Source for one call of Follow.
func New(env *source.Env) *Source {
	return &Source{
		env: env, log: env.Logger, queries: postgres.NewQueryConn(postgres.WithReadBuffer(env.Database, env.RowLimit()), env.Timeouts.Idle), slot: newSlot(env),
		ended: make(chan struct{}),
	}
}

// Probe returns the error that would keep a Source from following the table now, or nil.
func Probe(ctx context.Context, env *source.Env) error {
	s := New(env)
	defer s.queries.Close()
	missing, err := s.prepare(ctx)
	if err != nil {
		return err
	}
	if s.server.UsedSlots >= s.server.MaxSlots {
		return errNoFreeSlot
	}
	if _, err := s.connect(ctx); err != nil {
		return err
	}
	defer s.standby.close()
	created, err := s.slot.probe(ctx, s.standby.conn)
	if created {
		err = s.dropTestSlot(ctx, s.slot)
	}
	if err != nil || missing == nil {
		return err
	}
	return s.createPublication(ctx, missing)
}

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

// open connects for queries and for replication concurrently. Over a slow line, it spends most of its time on connecting. If
// both connections fail, it returns the error of the query connection, which explains more.
func (s *Source) open(ctx context.Context) (origin snapshot.Origin, err error) {
	connecting, stop := context.WithCancel(ctx)
	defer stop()
	connected := make(chan error, 1)
	var id serverID
	go func() {
		connected <- guard.Run(s.log, "connect for replication", func() (err error) {
			id, err = s.connect(connecting)
			return err
		})
	}()
	missing, err := s.prepare(ctx)
	if err != nil {
		stop()
	}
	connectErr := <-connected
	if err == nil {
		err = connectErr
	}
	if err == nil && missing != nil {
		if err = s.testSlot(ctx); err == nil {
			err = s.createPublication(ctx, missing)
		}
	}
	if err != nil {
		if connectErr == nil {
			s.standby.close()
		}
		return origin, err
	}
	s.server.SystemID, s.server.Timeline, s.server.Started = id.system, id.timeline, id.started
	s.env.SetServer(id.system, &s.server)
	return snapshot.Origin{
		Source: "logical", Database: s.server.Database, SystemID: id.system, Timeline: id.timeline, ServerVersion: s.server.Version,
	}, nil
}

// prepare loads the properties of the server and the table, and finds the publication. If the publication must be created or
// repaired first, the result missing is postgres.ErrPublicationMissing or postgres.ErrPublicationIncomplete; otherwise it is
// nil.
func (s *Source) prepare(ctx context.Context) (missing, err error) {
	err = s.queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if s.server, s.table, err = postgres.LoadServerAndTable(ctx, conn, s.env.Table); err != nil {
			return err
		}
		if err := s.checkStandbys(ctx, conn); err != nil {
			return err
		}
		if err := s.env.WithdrawHarmful(ctx, conn, s.table.Name()); err != nil {
			return err
		}
		s.publication.name, s.publication.fingerprint, err = postgres.FindPublication(ctx, conn, &s.server, s.table)
		return err
	})
	if errors.Is(err, postgres.ErrPublicationMissing) || errors.Is(err, postgres.ErrPublicationIncomplete) {
		return err, nil
	}
	return nil, err
}

// testSlot tests whether capture can create a slot, and drops that slot. capture creates its publication only after this test,
// because a publication can make the application's writes fail even if nobody uses it. The slot of the test cannot be used,
// because it is older than the publication: for each change, pgoutput looks up the publication in the catalog as it was at this
// change.
func (s *Source) testSlot(ctx context.Context) error {
	test := newSlot(s.env)
	created, err := test.probe(ctx, s.standby.conn)
	switch {
	case err != nil:
		return err
	case created:
		return s.dropTestSlot(ctx, test)
	}
	// The slot had to wait for write transactions, so probe has given up, and the connection is closed.
	s.standby.close()
	_, err = s.connect(ctx)
	return err
}

// dropTestSlot drops a slot that was created as a test. Otherwise, this slot would remain for a moment after the end of its
// connection, and the server might have no room for another slot.
func (s *Source) dropTestSlot(ctx context.Context, test *slot) error {
	return s.withIdleTimeout(ctx, func(ctx context.Context) error { return s.standby.exec(ctx, "DROP_REPLICATION_SLOT "+test.name) })
}

// createPublication creates or repairs the publication. The parameter missing is the first result of prepare, which says what is
// to be done: ErrPublicationMissing or ErrPublicationIncomplete.
func (s *Source) createPublication(ctx context.Context, missing error) error {
	err := s.queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		s.publication.name, s.publication.fingerprint, err = postgres.EnsurePublication(ctx, conn, &s.server, s.table)
		return err
	})
	if err != nil {
		return err
	}
	event := "publication created"
	if errors.Is(missing, postgres.ErrPublicationIncomplete) {
		event = "publication repaired"
	}
	s.log.Info(event, "publication", s.publication.name, "table", s.table.Name().String())
	return nil
}

// serverID identifies the server of the replication connection; see [snapshot.Place].
type serverID struct {
	system   string
	timeline int
	started  int64
}

// connect opens the replication connection, and identifies its server.
func (s *Source) connect(ctx context.Context) (id serverID, err error) {
	err = s.withIdleTimeout(ctx, func(ctx context.Context) error {
		conn, err := postgres.ConnectReplication(ctx, postgres.WithReadBuffer(postgres.WithCoalescedReads(s.reads.Attach(s.env.Database)), s.env.RowLimit()))
		if err != nil {
			return err
		}
		s.standby = newStandby(conn, &s.reads, s.env.Timeouts)
		began := time.Now()
		system, err := pglogrepl.IdentifySystem(ctx, conn)
		if err != nil {
			return fmt.Errorf("identify the system: %w", err)
		}
		id.system, id.timeline, s.roundTrip = system.SystemID, int(system.Timeline), time.Since(began)
		id.started, err = postgres.LoadServerStart(ctx, conn)
		return err
	})
	if err != nil && s.standby != nil {
		s.standby.close()
	}
	return id, err
}

// withIdleTimeout calls f, and cancels f's context if the replication connection receives nothing for Timeouts.Idle.
func (s *Source) withIdleTimeout(ctx context.Context, f func(context.Context) error) error {
	return s.reads.WithIdleTimeout(ctx, s.env.Timeouts.Idle, f)
}

// stream applies the replication stream. It returns when the context stop ends, the connection fails, or a check or a
// Barrier ends the stream. After the end of stop, the receiver and the standby continue while advanceHorizon runs.
func (s *Source) stream(stop context.Context, t *snapshot.Table, encoder *rowjson.Encoder) error {
	if err := s.startReplication(stop); err != nil {
		return err
	}
	ctx, endStream := context.WithCancelCause(context.WithoutCancel(stop))
	s.endStream = endStream
	defer endStream(nil)
	g, ctx := errgroup.WithContext(ctx)
	checking, endChecks := context.WithCancel(ctx) // ends with the context stop: a check must not delay the stop
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

// noteDoubt sets s.doubt if err is a ResyncError that is not Intact. It must get the error of every task, because stream
// returns only the first error, for example the error of a lost connection.
func (s *Source) noteDoubt(err error) {
	if resync := (*source.ResyncError)(nil); errors.As(err, &resync) && !resync.Intact {
		s.doubt.Store(true)
	}
}

// check returns a *source.ResyncError if the table, its publication or the slot has changed in a way that the stream does not
// show. Otherwise, it proposes the moment of the check as the next horizon. If the stream has not passed all proposed horizons,
// check requests a keepalive: on an idle server, nothing else would soon advance the applied position.
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
		_ = s.standby.sendStatus(true, true) // if the connection is broken, the receiver reports it
	}
	return err
}
