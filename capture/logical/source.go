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
// turns messages into writes to the snapshot.Table and returns commits. The standby, named after the protocol's message
// Standby status update, does all sending on the connection and confirms positions to the server. In addition, regular
// checks find what the stream does not show: changes of the catalog, the amount of WAL that the slot retains, and lost rows.
// They also propose horizons. From a horizon, the next attempt can resync without a copy of the whole table (horizon.go).
//
// The slot is temporary: the server drops it when the connection ends, so capture leaves nothing behind that retains WAL.
//
// A connection counts as broken if the server sends nothing for source.Timeouts.Idle, by default postgres.DefaultIdleTimeout.
//
// # Files
//
//   - source.go, follow.go: Source; its steps, one after the other, the regular check, and the last horizon before a stop
//   - open.go: the step open, and the probe of whether a Source could follow the table
//   - slot.go, awaitcommits.go: the slot; the wait until the commits in its snapshot are complete
//   - plainread.go, copy.go: a first file, made while the creation of the slot waits; the copy
//   - stream.go, apply.go: the receiver; the applier
//   - displacedrows.go, omittedrows.go: two rows with one key in the middle of a transaction; rows that are too large
//   - servervalues.go: values that only the server can compute
//   - standbystatus.go, barrier.go: the type standby; Barrier, which waits for the server's current WAL position
//   - catalogcheck.go, rowcount.go, physicalstandbys.go: the regular checks; catalogcheck.go also proposes horizons
//   - horizon.go: the horizons that have been proposed, and which of them the stream has passed
package logical

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/capture/source"
	"capture/internal/postgres"
)

// Source follows a table through a temporary replication slot.
type Source struct {
	env     *source.Env
	log     hclog.Logger
	queries *postgres.QueryConn
	reads   postgres.ReadClock // records when data last arrived over the replication connection
	slot    *slot
	ended   chan struct{} // closed when Follow has ended

	// Source.open sets these fields.
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

// withIdleTimeout calls f, and cancels f's context if the replication connection receives nothing for Timeouts.Idle.
func (s *Source) withIdleTimeout(ctx context.Context, f func(context.Context) error) error {
	return s.reads.WithIdleTimeout(ctx, s.env.Timeouts.Idle, f)
}

// noteDoubt sets s.doubt if err is a ResyncError whose field Intact is false. It must get the error of every task, because
// [Source.stream] returns only the first error, for example the error of a lost connection.
func (s *Source) noteDoubt(err error) {
	if resync := (*source.ResyncError)(nil); errors.As(err, &resync) && !resync.Intact {
		s.doubt.Store(true)
	}
}
