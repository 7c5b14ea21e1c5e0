package tablecopy

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"capture/internal/guard"
	"capture/internal/postgres"
	"capture/snapshot"
)

const (
	writeAheadBytes  = 16 << 20 // bytes of rows inserted between two calls of offerWriteAhead
	progressInterval = 10 * time.Second
)

// copyPipeline is one run of a Copier.
//
// Each connection has a goroutine that takes the next copyRange from ranges, and decodes and encodes its rows. Another
// goroutine, insertLoop, takes the same copyRanges from rangesInOrder and puts their rows into the Table. Even with several
// connections, the rows are therefore inserted in their order on disk, which is often the order of their keys. A connection
// that is ahead of its turn waits once it has filled all of its batches. This limits the memory.
type copyPipeline struct {
	*Copier
	dst     *snapshot.Table
	since   uint64 // rows of transactions with this or a later ID are read whole; 0 to read all rows whole
	limiter *rateLimiter

	ranges        chan *copyRange // ranges for the connections to read
	rangesInOrder chan *copyRange // the same ranges, for insertLoop

	// Only insertLoop changes these fields.
	rows, bytes  int64
	changed      int64 // number of rows that were read with all columns, not only with their keys
	notOffered   int   // bytes of rows inserted since the last call of offerWriteAhead
	lastProgress time.Time

	partials    chan []snapshot.Part // latest offer to writeAheadLoop; nil if nothing is written ahead
	connections atomic.Int32         // number of connections that have read a range
	invalidUTF8 atomic.Bool
	warnFewer   sync.Once
	start       time.Time
}

// copyRange is a range of pages and the channel of its rows. The batches of rows arrive on this channel in the order of the
// pages. The channel has room for all batches of a connection.
type copyRange struct {
	pageRange
	batches chan *rowBatch
	turn    chan struct{} // closed when insertLoop reaches this range
}

func newPipeline(c *Copier, dst *snapshot.Table, since uint64) *copyPipeline {
	now := time.Now()
	return &copyPipeline{Copier: c, dst: dst, since: since, start: now, lastProgress: now}
}

func (p *copyPipeline) stats() copyStats {
	return copyStats{
		rows: p.rows, changed: p.changed, bytes: p.bytes, connections: int(p.connections.Load()), took: time.Since(p.start),
		invalidUTF8: p.invalidUTF8.Load(),
	}
}

func (p *copyPipeline) run(ctx context.Context) error {
	size, err := loadRelationSize(ctx, p.conn, p.table)
	if err != nil {
		return err
	}
	p.env.Progress.StartRead(size.rows)
	if rate := p.env.Copy.Rate; rate > 0 {
		p.limiter = newRateLimiter(rate, FrozenClientTimeout(p.env)/4)
	}
	connections, snapshotName := size.chooseConnections(&p.env.Copy), ""
	if connections > 1 {
		if err := p.conn.QueryRow(ctx, "SELECT pg_catalog.pg_export_snapshot()").Scan(&snapshotName); err != nil {
			return fmt.Errorf("export the snapshot: %w", err)
		}
		close(p.watchdog.checkNow)
	}
	p.ranges, p.rangesInOrder = make(chan *copyRange), make(chan *copyRange, connections)
	if p.env.Copy.WriteAhead != nil {
		p.partials = make(chan []snapshot.Part, 1)
	}
	g, ctx := errgroup.WithContext(ctx)
	start := func(task string, f func(context.Context) error) {
		g.Go(func() error { return guard.Run(p.env.Logger, task, func() error { return f(ctx) }) })
	}
	start("divide a copy into ranges", func(ctx context.Context) error { return p.sendRanges(ctx, size, connections) })
	start("insert copied rows", func(ctx context.Context) error {
		writing, stop := context.WithCancel(ctx)
		defer stop() // ends writeAheadLoop; the Write after the copy writes the rows that it has not written
		if p.partials != nil {
			start("write a copy ahead", func(context.Context) error { return p.writeAheadLoop(writing) })
		}
		return p.insertLoop(ctx)
	})
	start("copy", func(ctx context.Context) error { return p.copyRanges(ctx, p.conn) })
	for range connections - 1 {
		start("copy", func(ctx context.Context) error { return p.runWorker(ctx, snapshotName) })
	}
	return g.Wait()
}

// sendRanges divides the table into ranges. It sends each range to insertLoop, and to whichever connection is free next.
func (p *copyPipeline) sendRanges(ctx context.Context, size relationSize, connections int) error {
	defer close(p.ranges)
	defer close(p.rangesInOrder)
	send := func(start, end int64) error {
		r := &copyRange{pageRange{start, end}, make(chan *rowBatch, batchesAhead), make(chan struct{})}
		for _, to := range []chan *copyRange{p.rangesInOrder, p.ranges} {
			select {
			case to <- r:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	if connections == 1 {
		return send(noPage, noPage)
	}
	step, start := size.pagesPerRange(&p.env.Copy), int64(0)
	for ; start+step < size.pages; start += step {
		if err := send(start, start+step); err != nil {
			return err
		}
	}
	return send(start, noPage)
}

// runWorker copies ranges over another connection, if the server accepts another connection.
func (p *copyPipeline) runWorker(ctx context.Context, snapshotName string) error {
	select {
	case <-p.watchdog.connected: // the Watchdog must get its connection before the copy gets another connection
	case <-ctx.Done():
		return ctx.Err()
	}
	conn, err := p.connectWorker(ctx, snapshotName)
	if conn != nil {
		defer postgres.CloseNow(conn.PgConn())
	}
	if errors.Is(err, errNoMoreConnections) && ctx.Err() == nil {
		p.warnFewer.Do(func() {
			p.env.Logger.Warn("the server has no room for another connection of the copy", "table", p.table.Name().String(), "error", postgres.Explain(err))
		})
		return nil
	}
	if err != nil {
		return err
	}
	return p.copyRanges(ctx, conn)
}

// copyRanges copies one range after the other over conn, until none is left.
func (p *copyPipeline) copyRanges(ctx context.Context, conn *pgx.Conn) error {
	encoder, err := NewEncoder(p.table, p.server, p.env.RowLimit())
	if err != nil {
		return err
	}
	free := make(chan *rowBatch, batchesAhead)
	for range batchesAhead {
		free <- &rowBatch{freeList: free}
	}
	d := &copyDecoder{ctx: ctx, encoder: encoder, limiter: p.limiter, values: make([][]byte, len(p.table.Columns)), free: free,
		maxRow: int(p.env.RowLimit()), takesTurns: p.env.MaxRow > 0}
	if p.since > 0 {
		d.key = p.table.Key
	}
	counted := false
	for r := range p.ranges {
		if !counted {
			counted = true
			p.connections.Add(1)
		}
		if err := p.copyRange(ctx, conn, d, r); err != nil {
			return err
		}
	}
	if encoder.Replaced() {
		p.invalidUTF8.Store(true)
	}
	return nil
}

func (p *copyPipeline) copyRange(ctx context.Context, conn *pgx.Conn, d *copyDecoder, r *copyRange) error {
	d.startCopy(r)
	query := p.table.CopyQuery(r.whereClause())
	if p.since > 0 {
		query = p.table.ChangesQuery(p.since, r.whereClause())
	}
	if _, err := conn.PgConn().CopyTo(ctx, d, query); err != nil {
		return err
	}
	if !d.trailer {
		return errors.New("the server's copy ended before its trailer")
	}
	d.flush()
	close(r.batches)
	return nil
}

// insertLoop puts the rows into the Table, in the order of the ranges.
func (p *copyPipeline) insertLoop(ctx context.Context) error {
	for r := range p.rangesInOrder {
		close(r.turn)
		for open := true; open; {
			var b *rowBatch
			select {
			case b, open = <-r.batches:
			case <-ctx.Done():
				return ctx.Err()
			}
			if !open {
				break
			}
			if err := p.insertBatch(b); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

func (p *copyPipeline) insertBatch(b *rowBatch) error {
	p.rows += int64(len(b.rows) + len(b.omitted))
	p.bytes += b.rawBytes
	p.env.Progress.AddRead(int64(len(b.rows)+len(b.omitted)), b.rawBytes)
	changed, err := b.insertInto(p.dst)
	if err != nil {
		return err
	}
	p.changed += int64(changed)
	if err := p.dst.Err(); err != nil {
		return err
	}
	p.notOffered += len(b.data)
	if p.partials != nil && p.notOffered >= cmp.Or(p.env.Copy.WriteAheadBytes, writeAheadBytes) {
		p.notOffered = 0
		p.offerWriteAhead(p.dst.Partial())
	}
	b.returnToFree()
	if now := time.Now(); now.Sub(p.lastProgress) > progressInterval {
		p.lastProgress = now
		p.env.Logger.Info("copying", "rows", p.rows, "bytes", p.bytes, "rows_per_second", int64(float64(p.rows)/now.Sub(p.start).Seconds()))
	}
	return nil
}

// offerWriteAhead offers the parts to writeAheadLoop. They replace an older offer that has not been taken yet.
func (p *copyPipeline) offerWriteAhead(parts []snapshot.Part) {
	if parts == nil {
		return
	}
	select {
	case <-p.partials:
	default:
	}
	select {
	case p.partials <- parts:
	default:
	}
}

// writeAheadLoop passes the offered parts to WriteAhead until ctx ends or WriteAhead needs no more parts.
func (p *copyPipeline) writeAheadLoop(ctx context.Context) error {
	for more := true; more; {
		select {
		case parts := <-p.partials:
			more = p.env.Copy.WriteAhead(ctx, parts)
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
