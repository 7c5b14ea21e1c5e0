package tablecopy

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/capture/source"
	"capture/internal/postgres"
	"capture/snapshot"
)

const (
	// A table is always copied whole if its rows have fewer than smallTableBytes bytes in total. The limit comes from a
	// measurement with rows of 3 kB, of which none had changed. A copy of 80 kB took 0.7 times as long as a resync, a copy of
	// 270 kB took 1.2 times as long, and a copy of 800 kB took 3 times as long.
	smallTableBytes = 256 << 10

	// sampledPages is the number of pages that are read to estimate how many rows have changed. If the share of changed rows is
	// above copiedShare, a copy of the whole table takes less time.
	sampledPages = 256
	leastSampled = 50 // smallest number of sampled rows for which an estimate counts
	copiedShare  = 0.75

	// Once a horizon is oldestHorizon transactions old, Update copies the whole table instead of using the horizon. Postgres
	// compares transaction IDs modulo 2^32, so a horizon is wrong after 2^31 transactions.
	oldestHorizon = 1 << 30
)

// Update brings t to the state of the table that c's transaction sees, and commits it as t's next View, with this origin and
// position. If the horizon of t's rows cannot be used in that transaction, or if a copy is faster, Update copies the whole
// table. Otherwise, it transfers only what has changed. It reports the read to Progress, and logs it with logFields.
// c.server must have the SystemID and the Timeline of the server.
//
// Update returns the horizon of the new View, or nil if the table can have none. The View may contain changes that the
// server has not flushed yet. Once all of them are durable, the caller passes the horizon to [snapshot.Table.SetHorizon].
func (c *Copier) Update(ctx context.Context, t *snapshot.Table, origin snapshot.Origin, position snapshot.Position, logFields ...any) (*snapshot.Horizon, error) {
	var moment postgres.Moment
	err := c.reads.WithIdleTimeout(ctx, c.env.Timeouts.Idle, func(ctx context.Context) (err error) {
		moment, err = postgres.LoadMoment(ctx, c.conn, c.table)
		return err
	})
	if err != nil {
		return nil, err
	}
	if c.server.Started != 0 && moment.Started != 0 && c.server.Started != moment.Started {
		return nil, errors.New("connections to the same address reach different servers")
	}
	now := HorizonAt(&moment, &c.server, c.table)
	if now != nil && position.LSN != 0 {
		now.LSN = position.LSN
	}
	why, err := c.wholeCopyReason(ctx, t, origin, position, &moment, now)
	if err != nil {
		return nil, changesError(err)
	}
	if why != "" {
		return now, c.copyWhole(ctx, t, origin, position, why, logFields)
	}
	return now, changesError(c.copyChanges(ctx, t, origin, position, logFields))
}

// HorizonAt returns the horizon of rows that are read at the moment m, or nil if the rows of the table can have no horizon.
// server must have the SystemID and the Timeline, because the horizon contains them.
func HorizonAt(m *postgres.Moment, server *postgres.Server, table *postgres.Table) *snapshot.Horizon {
	h := m.Horizon(server.SystemID, int32(server.Timeline), table)
	if !m.Heap || !h.IsComplete() || table.UnstableType() != "" {
		return nil
	}
	return h
}

// LoadPlace returns the present place of the table, for [source.Env.LoadRows]. conn must not be in a transaction, and server
// must have the SystemID and the Timeline. The place is incomplete if the rows of the table can have no horizon.
func LoadPlace(ctx context.Context, conn *pgx.Conn, table *postgres.Table, server *postgres.Server) (*snapshot.Place, error) {
	tx, err := postgres.Begin(ctx, conn, "READ ONLY")
	if err != nil {
		return nil, fmt.Errorf("begin to query the files of table %s: %w", table.Name(), err)
	}
	defer postgres.Rollback(ctx, tx)
	m, err := postgres.LoadMoment(ctx, conn, table)
	if err != nil {
		return nil, err
	}
	if h := HorizonAt(&m, server, table); h != nil {
		return &h.Place, nil
	}
	return &snapshot.Place{}, nil
}

// changesError returns a *source.ResyncError if the server has refused a statement, or if the server's answer cannot be
// decoded. The next attempt then copies the whole table. Otherwise, changesError returns err unchanged. It also returns a
// FATAL error unchanged, because such an error only ends the connection.
func changesError(err error) error {
	pg, decode := (*pgconn.PgError)(nil), (*decodeError)(nil)
	if errors.As(err, &pg) && pg.SeverityUnlocalized != "FATAL" || errors.As(err, &decode) {
		return &source.ResyncError{Reason: "what has changed cannot be read: " + postgres.RedactedMessage(err), Backoff: true}
	}
	return err
}

// wholeCopyReason returns the reason why the whole table must be copied, for the operator. It returns "" if it is enough to
// read what has changed since the horizon of t's rows. "Resync" in docs/design.md lists the reasons, and a test for each
// reason.
func (c *Copier) wholeCopyReason(ctx context.Context, t *snapshot.Table, origin snapshot.Origin, position snapshot.Position, m *postgres.Moment, now *snapshot.Horizon) (string, error) {
	v := t.View()
	if v == nil {
		return "first copy", nil
	}
	h := v.Horizon()
	switch {
	case m.Files == "":
		return "the server refuses to show what a resync needs", nil
	case !m.Heap:
		return "not all of the table is stored as a heap", nil
	case c.table.UnstableType() != "":
		return "values of type " + c.table.UnstableType() + " may change without their row", nil
	case now == nil:
		return "the server does not tell its identity", nil
	case h == nil:
		return "it is not known which rows have changed", nil
	case v.Origin().Source != origin.Source:
		return "the rows in memory come from another source", nil
	}
	if difference := h.Difference(&now.Place); difference != "" {
		return difference, nil
	}
	switch {
	case position.LSN < v.Position().LSN || m.LSN < v.Position().LSN || m.LSN < h.LSN:
		return "the server is at an earlier state than the file", nil
	case m.Xmax < h.XID || uint32(h.XID) < 3:
		return "the server has had fewer transactions than before", nil
	case m.Xmax-h.XID >= oldestHorizon:
		return "too many transactions since the last state", nil
	case v.Bytes() < smallTableBytes && !c.env.Copy.AlwaysResync:
		return "the table is small", nil
	}
	return c.mostlyChanged(ctx, h, m)
}

// mostlyChanged returns a reason to copy the whole table if a sample shows that most of its rows have changed, or that the
// horizon is too old. Otherwise it returns "".
func (c *Copier) mostlyChanged(ctx context.Context, h *snapshot.Horizon, m *postgres.Moment) (why string, err error) {
	var rows, changed int64
	var age int32
	err = c.reads.WithIdleTimeout(ctx, c.env.Timeouts.Idle, func(ctx context.Context) error {
		size, err := loadRelationSize(ctx, c.conn, c.table)
		if err != nil {
			return err
		}
		percent := min(100, 100*sampledPages/float64(max(size.pages, 1)))
		rows, changed, age, err = c.table.SampleChanges(ctx, c.conn, h.XID, percent)
		return err
	})
	switch {
	case err != nil:
		return "", err
	case age < 0 || uint64(age) < m.Xmax-h.XID || uint64(age) >= 2*oldestHorizon-1:
		return "too many transactions since the last state", nil
	case rows >= leastSampled && !c.env.Copy.AlwaysResync && float64(changed) > copiedShare*float64(rows):
		return "most rows have changed", nil
	}
	return "", nil
}

// copyChanges brings t up to date. It reads the keys of all rows, and the rows that have changed since the horizon of t's rows.
func (c *Copier) copyChanges(ctx context.Context, t *snapshot.Table, origin snapshot.Origin, position snapshot.Position, logFields []any) error {
	h := t.View().Horizon()
	if !t.LoadChanges(c.table.Shape, origin) {
		return c.copyWhole(ctx, t, origin, position, "rows in memory cannot be read", logFields)
	}
	p := newPipeline(c, t, h.XID)
	err := c.watchdog.Run(ctx, c.conn, p.run)
	deleted := 0
	if err == nil {
		deleted, err = p.checkComplete()
	}
	if err == nil {
		err = t.Commit(position)
	}
	if err != nil {
		t.Rollback()
		return fmt.Errorf("read the changes of table %s: %w", c.table.Name(), err)
	}
	s := p.stats()
	s.deleted = int64(deleted)
	c.env.Progress.RecordRead(s.tableRead(""))
	c.env.Logger.Info("resynced", append(logFields, s.logFields(c.table, "changed", s.changed, "deleted", s.deleted)...)...)
	if s.invalidUTF8 {
		c.env.WarnInvalidUTF8()
	}
	return nil
}

// checkComplete returns a *source.ResyncError if the server sent a key twice. The Table counts such a row once, but p.rows
// counts it twice. deleted is the number of rows in the Table whose keys the server did not send. The Commit will delete them.
func (p *copyPipeline) checkComplete() (deleted int, err error) {
	seen, unseen := p.dst.Seen()
	if int64(seen+p.dst.OmittedRows()) != p.rows {
		return 0, &source.ResyncError{Reason: "rows share a key"}
	}
	return unseen, nil
}
