package logical

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/guard"
	"capture/internal/postgres"
	"capture/snapshot"
)

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

// open connects for queries and for replication concurrently, because connecting takes most of the time over a slow line. If
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
// repaired, the first result is postgres.ErrPublicationMissing or postgres.ErrPublicationIncomplete. Otherwise, the first
// result is nil.
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
// because a publication can make the application's writes fail even if nobody uses it. The stream cannot use this slot,
// because it is older than the publication: for each change, pgoutput looks up the publication in the catalog as it was at
// this change.
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

// createPublication creates or repairs the publication. missing is the error with which prepare has reported that the
// publication must be created (ErrPublicationMissing) or repaired (ErrPublicationIncomplete).
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
