package capture

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

// What is read from the server and not yet in the Table.
const (
	batchBytes   = 256 << 10 // of keys and lines that are handed over at once
	batchesAhead = 32        // of each connection: two ranges, about
	draftBytes   = 16 << 20  // of them, after which the file's draft goes on
)

// rowBatch is some encoded rows on their way to the Table.
type rowBatch struct {
	data []byte // key and line of each row, one after the other
	rows []struct{ key, line int }
	wire int64          // bytes that it was made of
	home chan *rowBatch // takes it back
}

func (b *rowBatch) reset() {
	if cap(b.data) > 4*batchBytes {
		b.data = nil // one large row must not be kept for as long as the copy takes
	}
	b.data, b.rows, b.wire = b.data[:0], b.rows[:0], 0
}

// putInto puts the rows into t.
func (b *rowBatch) putInto(t *snapshot.Table) {
	rest := b.data
	for _, r := range b.rows {
		t.Put(rest[:r.key], rest[r.key:r.key+r.line])
		rest = rest[r.key+r.line:]
	}
}

// loading is one run of a tableCopy. Its connections take parts of the table in turn, and decode and encode them each on
// a goroutine of its own; one goroutine puts what they made into the Table, part after part. So the rows come in the order
// in which they lie, which is often that of their keys, over however many connections they are read.
type loading struct {
	copy  *tableCopy
	table *snapshot.Table
	pace  *pace

	todo    chan *part // for the connections
	ordered chan *part // the same, for the goroutine that puts

	rows, bytes int64                // of the goroutine that puts
	undrafted   int                  // bytes of keys and lines since the last draft; of that goroutine, too
	drafts      chan []snapshot.Part // the newest one, to the goroutine that writes ahead; nil for none
	jobs        atomic.Int32
	replaced    atomic.Bool
	start, said time.Time
	fewer       sync.Once // says that there are fewer connections than wanted
}

func (l *loading) run(ctx context.Context) error {
	c := l.copy
	lay, err := c.layout(ctx)
	if err != nil {
		return err
	}
	if c.env.Copy.Rate > 0 {
		l.pace = newPace(c.env.Copy.Rate, c.env.Timeouts.FrozenClient/4)
	}
	jobs, name := lay.jobs(&c.env.Copy), ""
	if jobs > 1 {
		if err := c.conn.QueryRow(ctx, "SELECT pg_catalog.pg_export_snapshot()").Scan(&name); err != nil {
			return fmt.Errorf("export its snapshot: %w", err)
		}
		close(c.hurry)
	}
	l.todo, l.ordered = make(chan *part), make(chan *part, jobs)
	g, ctx := errgroup.WithContext(ctx)
	run := func(what string, f func(context.Context) error) {
		g.Go(func() error { return guard.Run(c.env.Logger, what, func() error { return f(ctx) }) })
	}
	run("divide a copy", func(ctx context.Context) error { return l.divide(ctx, &lay, jobs) })
	run("keep a copy", func(ctx context.Context) error {
		drafting, end := context.WithCancel(ctx)
		defer end()
		if c.env.Copy.WriteAhead != nil {
			l.drafts = make(chan []snapshot.Part, 1)
			run("write a copy ahead", func(context.Context) error { return l.draft(drafting) })
		}
		return l.keep(ctx)
	})
	run("copy", func(ctx context.Context) error { return l.read(ctx, c.conn) })
	for range jobs - 1 {
		run("copy", func(ctx context.Context) error { return l.joinIn(ctx, name) })
	}
	return g.Wait()
}

// divide hands out the parts of the table.
func (l *loading) divide(ctx context.Context, lay *layout, jobs int) error {
	defer close(l.todo)
	defer close(l.ordered)
	hand := func(from, to int64) error {
		p := &part{from: from, to: to, batches: make(chan *rowBatch, batchesAhead)}
		for _, to := range []chan *part{l.ordered, l.todo} {
			select {
			case to <- p:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	}
	if jobs == 1 {
		return hand(noPage, noPage)
	}
	step := lay.step(&l.copy.env.Copy)
	from := int64(0)
	for ; from+step < lay.pages; from += step {
		if err := hand(from, from+step); err != nil {
			return err
		}
	}
	return hand(from, noPage)
}

// joinIn reads over one more connection, where the server has one to give; the attendant has its own first.
func (l *loading) joinIn(ctx context.Context, snapshotName string) error {
	select {
	case <-l.copy.met:
	case <-ctx.Done():
		return ctx.Err()
	}
	conn, err := l.copy.join(ctx, snapshotName)
	if conn != nil {
		defer postgres.CloseNow(conn.PgConn())
	}
	if errors.Is(err, errFewer) && ctx.Err() == nil {
		l.fewer.Do(func() {
			l.copy.env.Logger.Warn("the copy goes on over fewer connections than --copy-jobs wants", "table", l.copy.tab.Name().String(), "error", err)
		})
		return nil
	}
	if err != nil {
		return err
	}
	return l.read(ctx, conn)
}

// read reads parts of the table over conn, until there are none left.
func (l *loading) read(ctx context.Context, conn *pgx.Conn) error {
	enc, err := newEncoder(l.copy.tab, l.copy.srv)
	if err != nil {
		return err
	}
	w := &rowWriter{ctx: ctx, enc: enc, pace: l.pace, values: make([][]byte, len(l.copy.tab.Columns)), free: make(chan *rowBatch, batchesAhead)}
	for range batchesAhead {
		w.free <- &rowBatch{home: w.free}
	}
	took := false
	for p := range l.todo {
		if !took {
			took = true
			l.jobs.Add(1)
		}
		if err := l.readPart(ctx, conn, w, p); err != nil {
			return err
		}
	}
	if enc.Replaced() {
		l.replaced.Store(true)
	}
	return nil
}

func (l *loading) readPart(ctx context.Context, conn *pgx.Conn, w *rowWriter, p *part) error {
	w.to = p.batches
	w.begun, w.ended = false, false
	_, err := conn.PgConn().CopyTo(ctx, w, l.copy.tab.CopyQuery(p.where()))
	switch {
	case err != nil:
	case !w.ended:
		err = errors.New("the server's copy ended before its end mark")
	}
	if err != nil {
		return err
	}
	w.flush()
	close(p.batches)
	return nil
}

// keep puts the rows into the Table, in the order of the parts.
func (l *loading) keep(ctx context.Context) error {
	for p := range l.ordered {
		for open := true; open; {
			var b *rowBatch
			select {
			case b, open = <-p.batches:
			case <-ctx.Done():
				return ctx.Err()
			}
			if !open {
				break
			}
			if err := l.keepBatch(b); err != nil {
				return err
			}
		}
	}
	return ctx.Err()
}

func (l *loading) keepBatch(b *rowBatch) error {
	l.rows += int64(len(b.rows))
	l.bytes += b.wire
	b.putInto(l.table)
	if err := l.table.Err(); err != nil {
		return err
	}
	if l.undrafted += len(b.data); l.undrafted >= cmp.Or(l.copy.env.Copy.WriteAheadBytes, draftBytes) && l.drafts != nil {
		l.undrafted = 0
		l.hand(l.table.Partial())
	}
	b.reset()
	b.home <- b
	if now := time.Now(); now.Sub(l.said) > progressEvery {
		l.said = now
		l.copy.env.Logger.Info("copying", "rows", l.rows, "bytes", l.bytes, "rows_per_second", int64(float64(l.rows)/now.Sub(l.start).Seconds()))
	}
	return nil
}

// hand has the newest draft written ahead, in place of one that still waits.
func (l *loading) hand(parts []snapshot.Part) {
	if parts == nil {
		return
	}
	select {
	case <-l.drafts:
	default:
	}
	select {
	case l.drafts <- parts:
	default:
	}
}

// draft writes ahead, beside the copy, until ctx ends with it, or it proves to be in vain.
func (l *loading) draft(ctx context.Context) error {
	for going := true; going; {
		select {
		case parts := <-l.drafts:
			going = l.copy.env.Copy.WriteAhead(ctx, parts)
		case <-ctx.Done():
			return nil
		}
	}
	return nil
}
