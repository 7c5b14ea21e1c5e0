package capture

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pglogrepl"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"

	"capture/capture/source"
	"capture/internal/guard"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
)

// How often what is told.
const (
	statusEvery  = time.Second            // our position to the server, at the least; more often where it waits for less
	answerAfter  = 100 * time.Millisecond // between two answers that bring no progress
	checkEvery   = 2 * time.Second        // the catalog and the slot are looked at
	slotPatience = time.Second            // for the slot, besides some trips, before a plain read makes a first file
	rereadEvery  = time.Minute            // of the plain read, while the slot is still waited for
	nudgeAfter   = 300 * time.Millisecond // of a barrier's wait for the stream
)

// logical follows a table through a temporary replication slot and pgoutput.
type logical struct {
	env   *source.Env
	log   hclog.Logger
	ended chan struct{} // closed when Follow has ended
	side  *postgres.QueryConn
	tab   *postgres.Table
	srv   postgres.Server
	slot  string

	publication, mark string // its name, and how it was when the slot was made

	repl    *pgconn.PgConn
	write   sync.Mutex // one status message at a time, and none beside the end of repl or after it
	hungUp  bool
	told    pglogrepl.LSN
	toldAt  time.Time
	every   time.Duration // between two words to the server
	trip    time.Duration // to the server and back, at the start
	beaten  time.Time     // when repl was last used during a copy
	traffic postgres.ReadClock

	commitLag time.Duration // of the last commit, when it was applied; of the goroutine that reads
	applied   atomic.Uint64 // all of the stream up to there is in the Table
	broken    chan error    // the watch's word to the reader
}

func newLogical(env *source.Env) *logical {
	return &logical{
		env: env, log: env.Logger, ended: make(chan struct{}), broken: make(chan error, 1),
		side: postgres.NewQueryConn(env.Database, env.Timeouts.Idle),
	}
}

// Follow implements Source.
func (l *logical) Follow(ctx context.Context, t *snapshot.Table) error {
	defer close(l.ended)
	defer l.side.Close()
	origin, err := l.open(ctx)
	if err != nil {
		return err
	}
	defer l.hangUp()
	slot, err := l.createSlot(ctx, t, origin)
	if err != nil {
		return err
	}
	enc, err := l.copy(ctx, t, slot, origin)
	if err != nil {
		return err
	}
	return l.stream(ctx, t, enc)
}

// open prepares and connects, both at once for the sake of slow lines. What prepare finds is what is said.
func (l *logical) open(ctx context.Context) (origin snapshot.Origin, err error) {
	connecting, stop := context.WithCancel(ctx)
	defer stop()
	connected := make(chan error, 1)
	system := ""
	go func() {
		connected <- guard.Run(l.log, "connect for replication", func() (err error) {
			system, err = l.connect(connecting)
			return err
		})
	}()
	if err = l.prepare(ctx); err != nil {
		stop()
	}
	if failed := <-connected; err == nil {
		err = failed
	} else if failed == nil {
		l.hangUp()
	}
	if err != nil {
		return origin, err
	}
	l.env.SetServer(system, l.srv.Version)
	return snapshot.Origin{Source: "logical", Database: l.srv.Database, SystemID: system, ServerVersion: l.srv.Version}, nil
}

// connect opens the replication connection, and says which system answers.
func (l *logical) connect(ctx context.Context) (system string, err error) {
	err = l.talk(ctx, func(ctx context.Context) error {
		if l.repl, err = postgres.ConnectReplication(ctx, postgres.WithCoalescedReads(l.traffic.Attach(l.env.Database))); err != nil {
			return err
		}
		// The server asks for a word after half of the time that it waits, and that may take a while to come.
		l.every = min(statusEvery, max(postgres.WALSenderTimeout(l.repl)/4, 10*time.Millisecond))
		began := time.Now()
		id, err := pglogrepl.IdentifySystem(ctx, l.repl)
		if err != nil {
			return fmt.Errorf("identify the system: %w", err)
		}
		system, l.trip = id.SystemID, time.Since(began)
		return nil
	})
	if err != nil && l.repl != nil {
		l.hangUp()
	}
	return system, err
}

// prepare looks at the server and the table, and sees to the publication.
func (l *logical) prepare(ctx context.Context) error {
	return l.side.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
		if l.srv, l.tab, err = postgres.LoadServerAndTable(ctx, conn, l.env.Table); err != nil {
			return err
		}
		l.publication, l.mark, err = postgres.EnsurePublication(ctx, conn, &l.srv, l.tab)
		return err
	})
}

// talk bounds what is said over the connections that traffic watches by the server's silence.
func (l *logical) talk(ctx context.Context, f func(context.Context) error) error {
	return l.traffic.WithIdleTimeout(ctx, l.env.Timeouts.Idle, f)
}

// do runs a command on the replication connection.
func (l *logical) do(ctx context.Context, command string) error {
	if err := l.repl.Exec(ctx, command).Close(); err != nil {
		return fmt.Errorf("use the replication connection: %w", err)
	}
	return nil
}

// hangUp ends the replication connection, and with it the slot. A Barrier may be about to send a status message: one that
// waits for the server to read is cut short.
func (l *logical) hangUp() {
	for !l.write.TryLock() {
		_ = l.repl.Conn().SetWriteDeadline(time.Unix(1, 0))
		time.Sleep(time.Millisecond)
	}
	defer l.write.Unlock()
	l.hungUp = true
	_ = l.repl.Conn().SetWriteDeadline(time.Time{})
	postgres.CloseNow(l.repl)
}

// stream reads until ctx ends, the connection fails, or the watch finds that a fresh copy is needed.
func (l *logical) stream(ctx context.Context, t *snapshot.Table, enc *rowjson.Encoder) error {
	args := []string{"proto_version '1'", "publication_names " + postgres.QuoteReplicationString(postgres.QuoteIdentifier(l.publication))}
	err := l.talk(ctx, func(ctx context.Context) error {
		if err := l.do(ctx, "COMMIT"); err != nil {
			return err
		}
		if err := pglogrepl.StartReplication(ctx, l.repl, l.slot, 0, pglogrepl.StartReplicationOptions{PluginArgs: args}); err != nil {
			return fmt.Errorf("start replication: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	gen := newServerShape(ctx, l.side, l.tab)
	enc.Server = gen.toJSON
	lines := source.NewTxnLogger(l.log, l.tab.Shape)
	s := newStream(t, l.tab, enc, gen, func(x *source.TxnStats) {
		now := time.Now()
		l.commitLag = now.Sub(x.CommitTime)
		l.env.Progress.RecordCommit(x)
		lines.Add(x, now)
		if enc.Replaced() {
			l.env.WarnInvalidUTF8()
		}
	})
	l.env.Progress.SetFollowing(&l.traffic)
	l.log.Info("following", "table", l.tab.Name().String(), "source", "logical", "slot", l.slot, "lsn", postgres.FormatLSN(pglogrepl.LSN(l.applied.Load())))
	run := func(what string, f func() error) {
		g.Go(func() error { return guard.Run(l.log, what, f) })
	}
	run("watch", func() error { return l.watch(ctx) })
	run("count the rows", func() error { return l.countRows(ctx, t) })
	run("report the position", func() error { return l.report(ctx, lines) })
	run("apply the stream", func() error {
		// A read that waits is woken by a deadline in the past; the connection is closed right after.
		stop := context.AfterFunc(ctx, func() { _ = l.repl.Conn().SetReadDeadline(time.Unix(1, 0)) })
		defer stop()
		defer lines.Flush()
		err := l.read(s, lines)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return err
	})
	return g.Wait()
}
