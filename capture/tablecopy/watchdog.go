package tablecopy

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/capture/source"
	"capture/internal/guard"
	"capture/internal/postgres"
)

// WatchdogInterval is the time between two checks of a Watchdog. If a read uses one connection and takes less time than this,
// the Watchdog opens no connection.
const WatchdogInterval = 500 * time.Millisecond

// frozenClientTimeout is what FrozenClientTimeout returns unless a test has set Timeouts.FrozenClient.
const frozenClientTimeout = 2 * time.Minute

// FrozenClientTimeout returns the time after which the server ends a session if this process is frozen. It applies to the
// sessions of a copy, and to the session that creates the replication slot and keeps it until the stream begins.
func FrozenClientTimeout(env *source.Env) time.Duration {
	return cmp.Or(env.Timeouts.FrozenClient, frozenClientTimeout)
}

// CheckFunc is an additional check during a long read. If it returns a *source.ResyncError, the read ends. Any other error is
// ignored, because the connection of the check may recover.
type CheckFunc func(context.Context, *pgx.Conn) error

// Watchdog uses its own connection to observe a long read of the table. It ends the read if another session waits for a lock
// that the read holds, or if the server is silent for Timeouts.Idle. A Watchdog serves one read.
type Watchdog struct {
	env   *source.Env
	reads *postgres.ReadClock // records when bytes last arrived on the connections that read the table
	check CheckFunc

	checkNow  chan struct{} // closed to skip the first interval
	connected chan struct{} // closed once the Watchdog has its own connection, or the server has refused it

	mu   sync.Mutex
	pids []int32 // process IDs of the sessions that read
}

// NewWatchdog returns a Watchdog for one read of the table. The connections of the read report to the ReadClock. If check is
// not nil, the Watchdog calls it every WatchdogInterval.
func NewWatchdog(env *source.Env, reads *postgres.ReadClock, check CheckFunc) *Watchdog {
	return &Watchdog{env: env, reads: reads, check: check, checkNow: make(chan struct{}), connected: make(chan struct{})}
}

// Run calls the function read, which reads over conn and the connections added by AddSession. Run returns the error of this
// function, or the Watchdog's error if the Watchdog has ended the read.
func (w *Watchdog) Run(ctx context.Context, conn *pgx.Conn, read func(context.Context) error) error {
	if err := w.AddSession(ctx, conn); err != nil {
		return err
	}
	return guard.RunWatched(ctx, w.env.Logger, "watch a copy", w.checkLoop, read)
}

// socketBuffers is the number of bytes that a slow reader may have to read before the server notices any progress. TCP
// reopens its window only once a part of the receive buffer is free. With --copy-rate, AddSession adds the time for this
// many bytes to the timeout.
const socketBuffers = 8 << 20

// AddSession adds conn, which is in a transaction, to the sessions that the Watchdog observes. It also makes the server end the
// session if this process is frozen, since a frozen process cannot release its locks.
func (w *Watchdog) AddSession(ctx context.Context, conn *pgx.Conn) error {
	frozen := FrozenClientTimeout(w.env)
	if rate := w.env.Copy.Rate; rate > 0 {
		frozen += min(time.Duration(socketBuffers/float64(rate)*float64(time.Second)), 24*time.Hour)
	}
	pid, err := postgres.LimitFrozenSession(ctx, conn, frozen)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.pids = append(w.pids, pid)
	return nil
}

func (w *Watchdog) sessionPIDs() []int32 {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.pids)
}

// checkLoop runs the checks. It returns an error if the read must end, and nil once ctx ends.
func (w *Watchdog) checkLoop(ctx context.Context) error {
	queries := postgres.NewQueryConn(w.env.Database, w.env.Timeouts.Idle)
	defer queries.Close()
	tick := time.NewTicker(WatchdogInterval)
	defer tick.Stop()
	checkNow, connected := w.checkNow, w.connected // both are set to nil once they have been used
	lastContact := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-checkNow:
			checkNow = nil
		case <-tick.C:
		}
		err := queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) error {
			if err := checkBlocking(ctx, conn, w.sessionPIDs()); err != nil || w.check == nil {
				return err
			}
			return w.check(ctx, conn)
		})
		resync, answer, panicked := (*source.ResyncError)(nil), (*pgconn.PgError)(nil), (*guard.PanicError)(nil)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.As(err, &resync), errors.As(err, &panicked):
			return err
		case err == nil, errors.As(err, &answer): // an error message is also an answer of the server
			lastContact = time.Now()
			if connected != nil {
				close(connected)
				connected = nil
			}
		}
		// The server is alive as long as the Watchdog's connection or a reading connection receives something.
		if last := w.reads.LastRead(); last.After(lastContact) {
			lastContact = last
		}
		if idle := time.Since(lastContact); idle > w.env.Timeouts.Idle {
			return postgres.IdleError(idle)
		}
	}
}

// checkBlocking returns a *source.ResyncError if a session waits for a lock held by a session whose process ID is in pids.
func checkBlocking(ctx context.Context, conn *pgx.Conn, pids []int32) error {
	blocked, err := postgres.FindBlockedSession(ctx, conn, pids)
	if err != nil || blocked == "" {
		return err
	}
	return &source.ResyncError{Reason: "the copy gave way to a session that waits for the table: " + blocked, Backoff: true, Intact: true}
}
