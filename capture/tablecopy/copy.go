// Package tablecopy reads a table over ordinary connections, as one snapshot of the database shows it.
//
// A [Copier] copies the whole table with COPY in binary format. It reads a large table over several connections, which
// take ranges of its pages in turn. The rows pass through a pipeline:
//
//	connection ──COPY──▶ copyDecoder ──rowBatch──▶ insertLoop ──▶ snapshot.Table
//	connection ──COPY──▶ copyDecoder ──rowBatch──▶     │
//	                                                   └─ WriteAhead, to the file
//
// A [Reader] serves the sources that have no stream: it reads the table in transactions of its own, either the whole of it
// or the rows with certain keys. A [Watchdog] observes each long read from a connection of its own, and ends it if it
// blocks the application or the server is silent.
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

// Copier copies a whole table, as the open transaction of a connection sees it.
type Copier struct {
	env      *source.Env
	conn     *pgx.Conn           // in a transaction that keeps the table's definition locked
	reads    *postgres.ReadClock // of all connections of the copy
	table    *postgres.Table
	server   postgres.Server
	watchdog *Watchdog
}

// NewCopier returns a Copier that reads over conn, which is in a transaction of isolation level REPEATABLE READ or above.
// reads is attached to conn. check, if set, is called now and then during the copy, as by [NewWatchdog].
func NewCopier(env *source.Env, conn *pgx.Conn, reads *postgres.ReadClock, table *postgres.Table, server postgres.Server, check CheckFunc) *Copier {
	return &Copier{env, conn, reads, table, server, NewWatchdog(env, reads, check)}
}

// Copy makes the table the next View of t, with this origin and position. It reports the copy, and logs it with the
// additional fields.
func (c *Copier) Copy(ctx context.Context, t *snapshot.Table, origin snapshot.Origin, position snapshot.Position, logFields ...any) (took time.Duration, err error) {
	s, err := c.load(ctx, t, origin, position)
	if err != nil {
		return 0, err
	}
	c.env.Progress.RecordCopy(s.took)
	c.env.Logger.Info("copied", append(logFields, s.logFields(c.table)...)...)
	if s.invalidUTF8 {
		c.env.WarnInvalidUTF8()
	}
	return s.took, nil
}

// copyStats describes a copy.
type copyStats struct {
	rows, bytes int64 // bytes received from the server
	connections int   // number of connections that read
	took        time.Duration
	invalidUTF8 bool // some bytes were not valid text
}

func (s *copyStats) logFields(table *postgres.Table) []any {
	return []any{
		"table", table.Name().String(), "rows", s.rows, "bytes", s.bytes, "jobs", s.connections, "ms", source.Milliseconds(s.took),
	}
}

// load makes the table the next View of t.
func (c *Copier) load(ctx context.Context, t *snapshot.Table, origin snapshot.Origin, position snapshot.Position) (copyStats, error) {
	t.Load(c.table.Shape, origin)
	p := newPipeline(c, t)
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

// ReadTable makes the table, as a new transaction sees it, the next View of t. That View has no position in the stream.
// originSource names the source in the View's origin. check, if set, is called now and then during the copy, as by
// [NewWatchdog].
func ReadTable(ctx context.Context, env *source.Env, originSource string, t *snapshot.Table, check CheckFunc) error {
	var (
		reads  postgres.ReadClock
		conn   *pgx.Conn
		server postgres.Server
		table  *postgres.Table
	)
	err := reads.WithIdleTimeout(ctx, env.Timeouts.Idle, func(ctx context.Context) (err error) {
		if conn, err = postgres.Connect(ctx, postgres.WithReadBuffer(reads.Attach(env.Database), env.RowLimit())); err != nil {
			return err
		}
		if server, err = postgres.LoadServer(ctx, conn); err != nil {
			return err
		}
		tx, err := postgres.Begin(ctx, conn, "ISOLATION LEVEL REPEATABLE READ READ ONLY")
		if err != nil {
			return fmt.Errorf("begin to read table %s: %w", env.Table, err)
		}
		table, err = postgres.LoadTable(ctx, tx, env.Table)
		return err
	})
	if conn != nil {
		defer postgres.CloseNow(conn.PgConn())
	}
	if err != nil {
		return err
	}
	stats, err := NewCopier(env, conn, &reads, table, server, check).load(ctx, t, originOf(originSource, server), snapshot.Position{})
	if err != nil {
		return err
	}
	env.Logger.Info("read", stats.logFields(table)...)
	return nil
}

func originOf(source string, server postgres.Server) snapshot.Origin {
	return snapshot.Origin{Source: source, Database: server.Database, SystemID: server.SystemID, ServerVersion: server.Version}
}

// NewEncoder returns an Encoder for rows of the table as this server sends them.
// A row of more than maxRow bytes is a [*rowjson.TooLargeError].
func NewEncoder(table *postgres.Table, server postgres.Server, maxRow int64) (*rowjson.Encoder, error) {
	e, err := rowjson.NewEncoder(table.Shape, server.Encoding == "SQL_ASCII")
	if err == nil {
		e.MaxLine = int(maxRow)
	}
	return e, err
}

// lockTimeout bounds the wait for the lock that keeps a table's definition. Statements that wait behind this request are
// the application's.
const lockTimeout = "10s"

// lockTableSQL returns statements for an open transaction that keep others from changing the table's definition.
func lockTableSQL(table *postgres.Table) string {
	return fmt.Sprintf("SET LOCAL lock_timeout = '%s'; LOCK TABLE %s IN ACCESS SHARE MODE; SET LOCAL lock_timeout = 0",
		lockTimeout, table.FromClause())
}

// ImportSnapshot opens a transaction on conn that sees what an exported snapshot shows, and makes sure that this is the
// table as it was loaded before. Truncating or rewriting a table does not obey snapshots: in an older one, the new and
// empty file of the table shows no rows ("Caveats" in the documentation of MVCC).
func ImportSnapshot(ctx context.Context, env *source.Env, conn *pgx.Conn, table *postgres.Table, snapshotName string) error {
	// The idle timeout comes with the lock: a process that freezes right after must not keep it. (A Watchdog sets it, too,
	// but only once this function has returned.)
	tx, err := postgres.Begin(ctx, conn, fmt.Sprintf(`ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT %s;
		SET LOCAL idle_in_transaction_session_timeout = %d; %s`,
		postgres.QuoteLiteral(snapshotName), env.Timeouts.FrozenClient.Milliseconds(), lockTableSQL(table)))
	if err != nil {
		return fmt.Errorf("import the snapshot: %w", err)
	}
	now, err := postgres.LoadTable(ctx, tx, env.Table)
	if err != nil {
		return err
	}
	switch {
	case now.Fingerprint != table.Fingerprint:
		return &source.ResyncError{Reason: "the table's definition changed while the copy was being prepared"}
	case now.Rewritten():
		return &source.ResyncError{Reason: "the table was rewritten or truncated while the copy was being prepared"}
	}
	return nil
}

// errNoMoreConnections is the error if the server has no room for another connection. The copy uses those it has.
var errNoMoreConnections = errors.New("no further connection")

// connectWorker opens another connection that sees the snapshot that c.conn has exported.
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
