package verify

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

const (
	lockWatchInterval = 500 * time.Millisecond // time between two checks for sessions that wait for the table
	frozenTimeout     = 4 * time.Hour          // time after which the server ends a session of a frozen process; far longer than comparisons usually take
	watchLostTimeout  = 30 * time.Second       // a comparison ends after this time without a successful check
)

var errGaveWay = errors.New("the comparison gave way to a session that waits for its lock or its snapshot")

// lockWatch ends a comparison if the comparison's lock on the table makes another session wait.
//
// A comparison holds its lock until it ends, because it reads some rows of the table again after it has read the state.
// Without the lockWatch, an ALTER TABLE would wait for minutes, and the application's queries would queue up behind the
// ALTER TABLE. The two sessions of a comparison could even wait for each other: the second session waits behind the ALTER
// TABLE, and the ALTER TABLE waits for the first session. Postgres does not detect this deadlock, because it does not know
// that the first session waits for the second session. A live comparison also waits for a flush by the daemon, and that
// flush could wait behind the ALTER TABLE forever.
//
// The lockWatch does not observe a session of the comparison that is still waiting for its lock. Such a session holds no lock,
// because [postgres.Table.Lock] never waits while it holds one. Other sessions may queue up behind its request for the lock,
// but not for long, because Lock gives up after ten seconds.
type lockWatch struct {
	database *pgx.ConnConfig

	mu       sync.Mutex
	sessions []*tableSnapshot
}

// add adds t's session to the sessions that w observes.
func (w *lockWatch) add(t *tableSnapshot) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.sessions = append(w.sessions, t)
}

// run checks at each interval until ctx ends, and then returns nil. If a session waits, or if the checks fail for too long, run
// releases the locks and returns an error. It opens a connection of its own, but not before the first interval ends.
func (w *lockWatch) run(ctx context.Context) error {
	queries := postgres.NewQueryConn(w.database, 0)
	defer queries.Close()
	tick := time.NewTicker(lockWatchInterval)
	defer tick.Stop()
	checked := time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		var blocked string
		err := queries.Do(ctx, func(ctx context.Context, conn *pgx.Conn) (err error) {
			blocked, err = postgres.FindBlockedSession(ctx, conn, w.pids())
			return err
		})
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			checked = time.Now()
		case time.Since(checked) > watchLostTimeout:
			// Until watchLostTimeout has passed, a failed check does not matter, because the next check may succeed.
			w.closeSessions()
			return fmt.Errorf("check whether other sessions wait for the comparison: %w", err)
		}
		if blocked != "" {
			w.closeSessions()
			return fmt.Errorf("%w: %s", errGaveWay, blocked)
		}
	}
}

func (w *lockWatch) pids() (pids []int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.sessions {
		pids = append(pids, t.pid)
	}
	return pids
}

// closeSessions closes the sessions' sockets, which ends their transactions. It does not leave this to the goroutine that
// uses the connections, because this goroutine may be busy with rows for some time.
func (w *lockWatch) closeSessions() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, t := range w.sessions {
		_ = t.conn.PgConn().Conn().Close() // an error does not matter: the connection is not used again
	}
}
