package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

const progressEvery = 10 * time.Second

// Export reads the whole table once, as one transaction sees it, without a daemon.
func Export(ctx context.Context, cfg Config) (*snapshot.View, error) {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	t := cfg.newTable(cmp.Or(cfg.SpillDir, os.TempDir()), nil)
	if err := readTable(ctx, cfg.env("export", source.NewProgress("export", nil)), "export", t, nil); err != nil {
		return nil, postgres.Explain(err)
	}
	return t.View(), nil
}

// readTable copies the table as any transaction sees it into t's next View. Its place in the stream is not known. check,
// where there is one, is asked now and then: its *source.ResyncError ends the copy.
func readTable(ctx context.Context, env *source.Env, name string, t *snapshot.Table, check func(context.Context, *pgx.Conn) error) error {
	c := &tableCopy{attendant: attendant{env: env, traffic: &postgres.ReadClock{}, check: check}}
	err := c.traffic.WithIdleTimeout(ctx, env.Timeouts.Idle, func(ctx context.Context) (err error) {
		if c.conn, err = postgres.Connect(ctx, inBulk(c.traffic.Attach(env.Database))); err != nil {
			return err
		}
		if c.srv, err = postgres.LoadServer(ctx, c.conn); err != nil {
			return err
		}
		tx, err := postgres.Begin(ctx, c.conn, "ISOLATION LEVEL REPEATABLE READ READ ONLY")
		if err != nil {
			return fmt.Errorf("begin to read table %s: %w", env.Table, err)
		}
		c.tab, err = postgres.LoadTable(ctx, tx, env.Table)
		return err
	})
	if c.conn != nil {
		defer postgres.CloseNow(c.conn.PgConn())
	}
	if err != nil {
		return err
	}
	t.Load(c.tab.Shape, snapshot.Origin{Source: name, Database: c.srv.Database, SystemID: c.srv.SystemID, ServerVersion: c.srv.Version})
	done, err := c.into(ctx, t)
	if err != nil {
		t.Rollback()
		return err
	}
	if err := t.Commit(snapshot.Position{}); err != nil {
		return fmt.Errorf("copy table %s: %w", c.tab.Name(), err)
	}
	env.Logger.Info("read", "table", c.tab.Name().String(), "rows", done.rows, "bytes", done.bytes, "jobs", done.jobs, "ms", millis(done.took))
	return nil
}

func newEncoder(tab *postgres.Table, srv postgres.Server) (*rowjson.Encoder, error) {
	return rowjson.NewEncoder(tab.Shape, srv.Encoding == "SQL_ASCII")
}

// tableCopy reads the whole table, as a connection's open transaction sees it: attended, paced, and over
// several connections where the server and the table's size allow.
type tableCopy struct {
	attendant
	tab *postgres.Table
	srv postgres.Server
}

// copied is what a copy has read.
type copied struct {
	rows, bytes int64 // bytes of what came from the server
	jobs        int   // connections that took part
	took        time.Duration
	replaced    bool // bytes that are no text
}

// into reads into t's open Load. The caller commits, or rolls back.
func (c *tableCopy) into(ctx context.Context, t *snapshot.Table) (copied, error) {
	l := &loading{copy: c, table: t, start: time.Now()}
	l.said = l.start
	err := c.run(ctx, l.run)
	if err != nil {
		err = fmt.Errorf("copy table %s: %w", c.tab.Name(), err)
		if c.env.Copy.WriteAhead != nil {
			c.env.Copy.WriteAhead(ctx, nil)
		}
	}
	return copied{
		rows: l.rows, bytes: l.bytes, jobs: int(l.jobs.Load()), took: time.Since(l.start), replaced: l.replaced.Load(),
	}, err
}

// enter puts conn into a transaction with an exported snapshot and a lock that keeps the table's shape, and makes sure
// that what the snapshot shows is what was looked at before. Rewriting a table or truncating it is not bound to
// snapshots: an older one sees the new file of the table, empty.
func (c *tableCopy) enter(ctx context.Context, conn *pgx.Conn, snapshotName string) error {
	// Frozen between the lock and look, a process must not keep it.
	tx, err := postgres.Begin(ctx, conn, fmt.Sprintf(`ISOLATION LEVEL REPEATABLE READ READ ONLY; SET TRANSACTION SNAPSHOT %s;
		SET LOCAL idle_in_transaction_session_timeout = %d;
		SET LOCAL lock_timeout = '10s'; LOCK TABLE %s IN ACCESS SHARE MODE; SET LOCAL lock_timeout = 0`,
		postgres.QuoteLiteral(snapshotName), c.env.Timeouts.FrozenClient.Milliseconds(), c.tab.FromClause()))
	if err != nil {
		return fmt.Errorf("enter the snapshot: %w", err)
	}
	now, err := postgres.LoadTable(ctx, tx, c.env.Table)
	if err != nil {
		return err
	}
	switch {
	case now.Fingerprint != c.tab.Fingerprint:
		return &source.ResyncError{Reason: "the table changed shape while the copy was being prepared"}
	case now.Rewritten():
		return &source.ResyncError{Reason: "the table was rewritten or truncated while the copy was being prepared"}
	}
	return nil
}

// errFewer is that the server has no place for one more connection: the others go on without it.
var errFewer = errors.New("no further connection")

// join opens one more connection in the snapshot that c.conn has exported. It is errFewer where the server refuses.
func (c *tableCopy) join(ctx context.Context, snapshotName string) (conn *pgx.Conn, err error) {
	err = c.traffic.WithIdleTimeout(ctx, c.env.Timeouts.Idle, func(ctx context.Context) error {
		if conn, err = postgres.Connect(ctx, inBulk(c.traffic.Attach(c.env.Database))); err != nil {
			return errors.Join(errFewer, err)
		}
		if err = c.enter(ctx, conn, snapshotName); err != nil {
			return fmt.Errorf("join in on another connection: %w", err)
		}
		return c.look(ctx, conn)
	})
	return conn, err
}
