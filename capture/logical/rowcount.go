package logical

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/postgres"
	"capture/snapshot"
)

// rowCountInterval is the time between two counts of the rows.
const rowCountInterval = time.Hour

// rowCounter regularly compares the number of rows in dst with the number of rows in the database. It detects rows that an
// unknown fault has lost or doubled.
type rowCounter struct {
	env     *source.Env
	table   *postgres.Table
	dst     *snapshot.Table
	barrier func(context.Context) error
}

// run compares the row counts at each interval until ctx ends. It returns a *source.ResyncError if they differ.
func (c *rowCounter) run(ctx context.Context) error {
	tick := time.NewTicker(cmp.Or(c.env.Timeouts.RowCount, rowCountInterval))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		err := c.compare(ctx)
		resync := (*source.ResyncError)(nil)
		switch {
		case err == nil, ctx.Err() != nil, errors.Is(err, source.ErrNotFollowing):
		case errors.As(err, &resync) && !resync.Backoff:
			return err
		default: // the count gave way to another session, or failed
			c.env.Logger.Info("rows not counted", "reason", postgres.Explain(err))
		}
	}
}

// compare returns a *source.ResyncError if the row counts differ. If the Table changes during a count, rows may have been
// inserted or deleted, so the count proves nothing. Only a difference in three successive counts is an error.
func (c *rowCounter) compare(ctx context.Context) error {
	var rows int
	for range 3 {
		if err := c.barrier(ctx); err != nil {
			return err
		}
		before := c.dst.View()
		var err error
		if rows, err = c.count(ctx); err != nil {
			return err
		}
		if err := c.barrier(ctx); err != nil {
			return err
		}
		if after := c.dst.View(); rows == before.Rows()+before.OmittedRows() || after.Version() != before.Version() {
			return nil
		}
	}
	v := c.dst.View()
	return &source.ResyncError{Reason: fmt.Sprintf("the table has %d rows and feedback.json %d", rows, v.Rows()+v.OmittedRows())}
}

// count returns the number of rows in the database. The query may take long, so it runs on its own connection and under a
// Watchdog.
func (c *rowCounter) count(ctx context.Context) (rows int, err error) {
	var (
		reads postgres.ReadClock
		conn  *pgx.Conn
		tx    pgx.Tx
	)
	err = reads.WithIdleTimeout(ctx, c.env.Timeouts.Idle, func(ctx context.Context) (err error) {
		if conn, err = postgres.Connect(ctx, reads.Attach(c.env.Database)); err == nil {
			tx, err = postgres.Begin(ctx, conn, "READ ONLY")
		}
		if err == nil {
			err = c.table.Lock(ctx, tx)
		}
		return err
	})
	if conn != nil {
		defer postgres.CloseNow(conn.PgConn())
	}
	if err == nil {
		err = tablecopy.NewWatchdog(c.env, &reads, nil).Run(ctx, conn, func(ctx context.Context) error {
			return tx.QueryRow(ctx, "SELECT count(*) FROM "+c.table.FromClause()).Scan(&rows)
		})
	}
	if err != nil {
		return 0, fmt.Errorf("count the rows: %w", err)
	}
	return rows, nil
}
