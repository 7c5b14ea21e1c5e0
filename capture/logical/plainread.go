package logical

import (
	"context"
	"math"
	"time"

	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/guard"
	"capture/internal/postgres"
	"capture/snapshot"
)

const (
	slotPatience      = time.Second // the first plain read begins when slot creation has taken this time and a few round trips
	plainReadInterval = time.Minute // time between plain reads while the slot is still being created
)

// plainReads reads the table without a slot while open transactions block the creation of the slot. Otherwise the first file
// would have to wait for the longest of these transactions.
type plainReads struct {
	*Source
	dst     *snapshot.Table
	origin  snapshot.Origin
	checked time.Time     // time of the last check for harmful publications
	next    time.Time     // time of the next read
	first   time.Time     // earliest time of the first read
	logged  bool          // whether the blocked slot creation has been logged
	lsn     pglogrepl.LSN // WAL position after the last read; everything that the read showed is before this position
}

// createSlotOrPlainRead creates the slot. If the creation takes long, it also makes plain reads of the table in the
// meantime.
func (s *Source) createSlotOrPlainRead(ctx context.Context, t *snapshot.Table, origin snapshot.Origin) (slotSnapshot, error) {
	type result struct {
		start slotSnapshot
		err   error
	}
	creating, cancel := context.WithCancel(ctx)
	reading, stopReading := context.WithCancel(ctx)
	created := make(chan result, 1)
	go func() {
		defer stopReading()
		var r result
		r.err = guard.Run(s.log, "create a replication slot", func() (err error) {
			r.start, err = s.slot.create(creating, s.standby.conn)
			return err
		})
		created <- r
	}()
	defer func() {
		cancel()
		s.env.Progress.SetBlocked("")
	}()
	p := &plainReads{Source: s, dst: t, origin: origin, next: time.Now().Add(slotPatience + 4*s.roundTrip)}
	if v := t.View(); v != nil && v.Horizon() != nil {
		// The rows in memory can be resynced from the slot's snapshot, but a plain read would make this impossible. The whole
		// table would then be copied twice: by the plain read, and from the slot's snapshot. Therefore, the first plain read
		// begins later.
		p.first = time.Now().Add(plainReadInterval)
	}
	tick := time.NewTicker(tablecopy.WatchdogInterval)
	defer tick.Stop()
	for {
		select {
		case r := <-created:
			if r.err == nil && r.start.lsn < p.lsn { // the slot was created while a plain read was still running
				r.err = &source.ResyncError{Reason: "the replication slot starts before the state that a plain read has already shown", Backoff: true}
			}
			if r.err == nil {
				r.err = awaitCommits(ctx, s.env, s.queries, r.start.name)
			}
			return r.start, r.err
		case <-tick.C:
		}
		if err := p.readIfDue(ctx, reading); err != nil {
			cancel()
			<-created
			return slotSnapshot{}, err
		}
	}
}

// readIfDue checks the slot, and reads the table if a plain read is due. untilCreated ends as soon as the slot
// exists. If the plain read fails, readIfDue only logs the error.
func (p *plainReads) readIfDue(ctx, untilCreated context.Context) error {
	if !p.logged && time.Now().Before(p.next) {
		// Run no query yet, because the slot usually exists soon. Its creation ends untilCreated, which would interrupt a
		// running query and break the connection.
		return nil
	}
	if err := p.queries.Do(untilCreated, p.check); err != nil && untilCreated.Err() == nil {
		return err
	}
	if time.Now().Before(p.next) || untilCreated.Err() != nil {
		return nil
	}
	p.reportBlocked(untilCreated)
	if time.Now().Before(p.first) {
		p.next = p.first
		return nil
	}
	switch err := tablecopy.ReadTable(untilCreated, p.env, p.origin.Source, p.dst, p.slot.checkUncreated); {
	case err == nil:
		p.lsn = p.currentLSN(ctx)
	case untilCreated.Err() == nil:
		p.log.Warn("plain read failed", "error", postgres.Explain(err))
	}
	p.next = time.Now().Add(plainReadInterval)
	return nil
}

// check checks the slot. The creation of the slot may wait for hours, so check also withdraws the publication if the
// publication makes writes fail.
func (p *plainReads) check(ctx context.Context, conn *pgx.Conn) error {
	if time.Since(p.checked) >= p.env.Timeouts.Check {
		p.checked = time.Now()
		if err := p.env.WithdrawHarmful(ctx, conn, p.table.Name()); err != nil {
			return err
		}
	}
	return p.slot.checkUncreated(ctx, conn)
}

// reportBlocked reports which transactions block the creation of the slot.
func (p *plainReads) reportBlocked(ctx context.Context) {
	var reason string
	err := p.queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		reason, err = blockingTransactions(ctx, conn)
		return err
	})
	if err != nil {
		p.log.Debug("the open transactions are not known", "error", err)
	}
	p.env.Progress.SetBlocked(reason)
	if !p.logged {
		p.logged = true
		p.log.Warn("slot creation is blocked by open transactions; writing a first file from a plain read", "reason", reason)
	}
}

// currentLSN returns a WAL position after every change that the last plain read contains, or the highest possible position
// if the server does not answer. The file must never go back to an older state, so a slot that starts before this position
// cannot be used.
func (p *plainReads) currentLSN(ctx context.Context) (lsn pglogrepl.LSN) {
	err := p.queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		lsn, err = postgres.LoadInsertLSN(ctx, conn)
		return err
	})
	if err != nil {
		return math.MaxUint64
	}
	return lsn
}
