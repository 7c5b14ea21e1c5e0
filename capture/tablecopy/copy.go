// Package tablecopy reads a table over ordinary connections, as one snapshot of the database shows it.
//
// A [Copier] copies the whole table with COPY in binary format. It reads a large table over several connections, each of which
// reads one range of pages after another. The rows pass through a pipeline:
//
//	connection ──COPY──▶ copyDecoder ──rowBatch──▶ insertLoop ──▶ snapshot.Table
//	connection ──COPY──▶ copyDecoder ──rowBatch──▶     │
//	                                                   └─ WriteAhead, to the file
//
// [Copier.Update] transfers only what has changed since the horizon of the rows in memory (see [snapshot.Horizon]), through the
// same pipeline. If that is not possible, it copies the whole table.
//
// A [Reader] serves the sources that have no stream: it reads the table in its own transactions, either the whole table or the
// rows with given keys. A [Watchdog] uses its own connection to observe each long read, and ends the read if it blocks the
// application or if the server is silent.
//
// # Files
//
//   - copy.go, resync.go: the Copier; Copier.Update and its reasons for a copy of the whole table
//   - connections.go, pipeline.go: the number of connections and the page ranges that they read; the pipeline
//   - batch.go, copydecoder.go, omittedrows.go: encoded rows; COPY's binary format; rows that are too large
//   - ratelimit.go: --copy-rate
//   - watchdog.go: the Watchdog, and when it ends a read
//   - reader.go, durablehorizon.go: the Reader; when the rows that it has read get a horizon
//   - readtable.go: ReadTable, one read of the whole table with a Reader of its own
package tablecopy

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// Copier copies a whole table, or what has changed in it, as the open transaction of its connection sees it.
type Copier struct {
	env      *source.Env
	conn     *pgx.Conn           // connection with an open transaction that locks the table's definition
	reads    *postgres.ReadClock // records when data last arrived over any connection of the copy
	table    *postgres.Table
	server   postgres.Server
	watchdog *Watchdog
}

// NewCopier returns a Copier that reads over conn, which must be in a transaction of isolation level REPEATABLE READ or above.
// The ReadClock must be attached to conn. The CheckFunc, if not nil, is called regularly during the copy (see [NewWatchdog]).
func NewCopier(env *source.Env, conn *pgx.Conn, reads *postgres.ReadClock, table *postgres.Table, server postgres.Server, check CheckFunc) *Copier {
	return &Copier{env, conn, reads, table, server, NewWatchdog(env, reads, check)}
}

// copyWhole copies the whole table into t as its next View, with this origin and position. It reports the copy and the reason
// for it to Progress, and logs both with logFields.
func (c *Copier) copyWhole(ctx context.Context, t *snapshot.Table, origin snapshot.Origin, position snapshot.Position, reason string, logFields []any) error {
	s, err := c.load(ctx, t, origin, position)
	if err != nil {
		return err
	}
	c.env.Progress.RecordRead(s.tableRead(reason))
	c.env.Logger.Info("copied", append(append([]any{"reason", reason}, logFields...), s.logFields(c.table)...)...)
	if s.invalidUTF8 {
		c.env.WarnInvalidUTF8()
	}
	return nil
}

// copyStats are the statistics of a finished copy.
type copyStats struct {
	rows, bytes int64 // number of rows and bytes received from the server
	changed     int64 // number of rows that were received whole
	deleted     int64 // number of rows that were deleted from the Table
	connections int   // number of connections that have read a range
	took        time.Duration
	invalidUTF8 bool // whether some bytes were not valid UTF-8
}

// tableRead returns the statistics in the form that Progress records. wholeBecause is the reason for a copy of the whole table.
func (s *copyStats) tableRead(wholeBecause string) source.TableRead {
	return source.TableRead{Ended: time.Now(), Took: s.took, WholeBecause: wholeBecause, Changed: s.changed, Deleted: s.deleted, Bytes: s.bytes}
}

// logFields returns the key–value pairs for a log line, with the additional pairs after the number of rows.
func (s *copyStats) logFields(table *postgres.Table, more ...any) []any {
	fields := append([]any{"table", table.Name().String(), "rows", s.rows}, more...)
	return append(fields, "bytes", s.bytes, "jobs", s.connections, "ms", source.Milliseconds(s.took))
}

// load copies the table into t. The next View of t shows the copy.
func (c *Copier) load(ctx context.Context, t *snapshot.Table, origin snapshot.Origin, position snapshot.Position) (copyStats, error) {
	t.Load(c.table.Shape, origin)
	p := newPipeline(c, t, 0)
	err := c.watchdog.Run(ctx, c.conn, p.run)
	if err == nil {
		err = t.Commit(position)
	}
	if err != nil {
		t.Rollback()
		if c.env.Copy.WriteAhead != nil {
			c.env.Copy.WriteAhead(ctx, nil)
		}
		return copyStats{}, fmt.Errorf("copy table %s: %w", c.table.Name(), err)
	}
	return p.stats(), nil
}

func originOf(source string, server postgres.Server) snapshot.Origin {
	return snapshot.Origin{Source: source, Database: server.Database, SystemID: server.SystemID, Timeline: server.Timeline, ServerVersion: server.Version}
}

// NewEncoder returns an Encoder for rows of the table as this server sends them. For a row of more than maxRow bytes, the
// Encoder returns a [*rowjson.TooLargeError].
func NewEncoder(table *postgres.Table, server postgres.Server, maxRow int64) (*rowjson.Encoder, error) {
	e, err := rowjson.NewEncoder(table.Shape, server.Encoding == "SQL_ASCII")
	if err == nil {
		e.MaxLine = int(maxRow)
	}
	return e, err
}

// ImportSnapshot begins a transaction on conn that uses an exported snapshot. It returns a *source.ResyncError if the table was
// redefined, rewritten, truncated or renamed after its definition was loaded. If the table was rewritten or truncated, an older
// snapshot shows it as empty, because these commands are not MVCC-safe (PostgreSQL documentation, "Concurrency Control",
// "Caveats"). If the table was renamed, the copy would read another table that now has its old name.
func ImportSnapshot(ctx context.Context, env *source.Env, conn *pgx.Conn, table *postgres.Table, snapshotName string) error {
	tx, err := postgres.Begin(ctx, conn, "ISOLATION LEVEL REPEATABLE READ READ ONLY")
	if err != nil {
		return fmt.Errorf("begin to import the snapshot: %w", err)
	}
	// Lock also sets the idle timeout, so a process that freezes right afterwards keeps neither the lock nor the snapshot.
	if err := table.Lock(ctx, tx); err != nil {
		return err
	}
	// The snapshot may show a partition that was detached later. Lock has not locked this partition, so LoadTable may have to
	// wait for its lock. This wait must be short, because this transaction holds other locks.
	sql := "SET LOCAL lock_timeout = 100; SET TRANSACTION SNAPSHOT " + postgres.QuoteLiteral(snapshotName)
	if _, err := tx.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("import the snapshot: %w", err)
	}
	const renamed = "the table was renamed while the copy was being prepared"
	now, err := postgres.LoadTable(ctx, tx, env.Table)
	switch p := (*postgres.Problem)(nil); {
	case errors.As(err, &p) && p.TableMissing(): // LOCK has found a table of this name that is newer than the snapshot
		return &source.ResyncError{Reason: renamed}
	case postgres.IsLockTimeout(err):
		return &source.ResyncError{Reason: "another session has locked a partition that the snapshot shows", Backoff: true}
	case err != nil:
		return err
	case now.Fingerprint != table.Fingerprint:
		return &source.ResyncError{Reason: "the table's definition changed while the copy was being prepared"}
	case now.Renamed():
		return &source.ResyncError{Reason: renamed}
	case now.Rewritten():
		return &source.ResyncError{Reason: "the table was rewritten or truncated while the copy was being prepared", Intact: true}
	}
	if _, err := tx.Exec(ctx, "SET LOCAL lock_timeout = 0", pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("set lock_timeout: %w", err)
	}
	return nil
}

// errNoMoreConnections means that the server accepts no more connections. The copy continues over the existing connections.
var errNoMoreConnections = errors.New("no further connection")

// connectWorker opens another connection and imports the snapshot that c.conn has exported.
func (c *Copier) connectWorker(ctx context.Context, snapshotName string) (conn *pgx.Conn, err error) {
	err = c.reads.WithIdleTimeout(ctx, c.env.Timeouts.Idle, func(ctx context.Context) error {
		if conn, err = postgres.Connect(ctx, postgres.WithReadBuffer(c.reads.Attach(c.env.Database), c.env.RowLimit())); err != nil {
			return errors.Join(errNoMoreConnections, err)
		}
		if err = ImportSnapshot(ctx, c.env, conn, c.table, snapshotName); err != nil {
			return fmt.Errorf("open another connection of the copy: %w", err)
		}
		return c.watchdog.AddSession(ctx, conn)
	})
	return conn, err
}
