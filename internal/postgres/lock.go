package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// lockWait limits how long capture waits for the lock on a table. While capture waits, statements of the application may
	// queue up behind its request.
	lockWait = 10 * time.Second
	// lockRetryPause is the pause between two attempts to lock the partitions of a table.
	lockRetryPause = 100 * time.Millisecond
	// lockIdleTimeout is the time after which the server ends a session that is idle in a transaction with the lock. Without
	// this timeout, a process that freezes right after it has obtained the lock would keep the lock. For a long transaction,
	// callers set their own timeout afterwards, with LimitFrozenSession.
	lockIdleTimeout = 2 * time.Minute
)

// LockMode is a mode of LOCK TABLE.
type LockMode string

// The lock modes that capture uses.
const (
	AccessShare       LockMode = "ACCESS SHARE"
	RowExclusive      LockMode = "ROW EXCLUSIVE"
	ShareRowExclusive LockMode = "SHARE ROW EXCLUSIVE"
)

// Lock locks the table's definition, and that of its partitions, until the open transaction tx ends. It takes no snapshot. If
// another session holds a conflicting lock for longer than lockWait, Lock returns an error for which IsLockTimeout is true.
// Lock also sets the transaction's idle timeout to lockIdleTimeout.
func (t *Table) Lock(ctx context.Context, tx pgx.Tx) error {
	idle := fmt.Sprintf("SET LOCAL idle_in_transaction_session_timeout = %d; ", lockIdleTimeout.Milliseconds())
	if err := t.lock(ctx, tx, AccessShare, lockWait, idle); err != nil {
		return fmt.Errorf("lock table %s against changes of its definition: %w", t.Name(), err)
	}
	return nil
}

// LockIn locks the table and its partitions in the given mode until the open transaction tx ends. If another session holds a
// conflicting lock for longer than wait, LockIn returns an error for which IsLockTimeout is true. It sets the transaction's
// lock_timeout to 0.
//
// LockIn waits only while it holds no lock. LOCK TABLE locks partitions one by one, and a statement of the application may lock
// two partitions in the opposite order. If LOCK TABLE waited for one of them while it held the lock on the other, there would be
// a deadlock, and Postgres could cancel the application's statement. So LockIn waits only for the partitioned table itself. If a partition is locked, LockIn releases its locks and tries again.
func (t *Table) LockIn(ctx context.Context, tx pgx.Tx, mode LockMode, wait time.Duration) error {
	return t.lock(ctx, tx, mode, wait, "")
}

// lock does the work of LockIn. Each attempt begins with the SQL statements in settings.
func (t *Table) lock(ctx context.Context, tx pgx.Tx, mode LockMode, wait time.Duration, settings string) error {
	for deadline := time.Now().Add(wait); ; {
		_, err := tx.Exec(ctx, settings+t.lockSQL(mode, time.Until(deadline)), pgx.QueryExecModeSimpleProtocol)
		if err == nil {
			return nil
		}
		if !t.Partitioned || !IsLockTimeout(err) || time.Until(deadline) < lockRetryPause {
			return err
		}
		if _, err := tx.Exec(ctx, "ROLLBACK TO SAVEPOINT unlocked; RELEASE SAVEPOINT unlocked", pgx.QueryExecModeSimpleProtocol); err != nil {
			return fmt.Errorf("unlock the table: %w", err)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(lockRetryPause):
		}
	}
}

// lockSQL returns the statements of one attempt of LockIn. The attempt waits for at most the given time.
func (t *Table) lockSQL(mode LockMode, wait time.Duration) string {
	name := t.Name().Quoted()
	lock := fmt.Sprintf("LOCK TABLE ONLY %s IN %s MODE", name, mode)
	if t.Partitioned {
		lock = fmt.Sprintf("SAVEPOINT unlocked; %s; LOCK TABLE %s IN %s MODE NOWAIT; RELEASE SAVEPOINT unlocked", lock, name, mode)
	}
	// The wait is at least 1 ms, because a lock_timeout of 0 would mean no limit.
	return fmt.Sprintf("SET LOCAL lock_timeout = %d; %s; SET LOCAL lock_timeout = 0", max(wait.Milliseconds(), 1), lock)
}

// ErrRedefined means that the table's definition was different in each of several attempts to lock it.
var ErrRedefined = errors.New("its definition changes all the time")

// BeginLocked begins a read-only transaction of isolation level REPEATABLE READ, and locks the table's definition before the
// transaction takes its snapshot. In the opposite order, the transaction could take its snapshot and then wait for a migration
// that rewrites, truncates or exchanges the table. These changes are not MVCC-safe (PostgreSQL documentation, "Concurrency
// Control", "Caveats"), so the table would look empty.
//
// load is LoadTable or a similar function. known is the result of an earlier load, or nil. If the table has not changed since then, BeginLocked returns this earlier result. Otherwise it returns the table as
// the snapshot shows it.
func BeginLocked(ctx context.Context, conn *pgx.Conn, name Name, known *Table, load func(context.Context, Querier, Name) (*Table, error)) (pgx.Tx, *Table, error) {
	for range 5 {
		if known == nil {
			var err error
			if known, err = loadUnlocked(ctx, conn, name, load); err != nil {
				return nil, nil, err
			}
		}
		tx, err := Begin(ctx, conn, "ISOLATION LEVEL REPEATABLE READ READ ONLY")
		if err != nil {
			return nil, nil, fmt.Errorf("begin to read table %s: %w", name, err)
		}
		var now *Table
		if err = known.Lock(ctx, tx); err == nil {
			now, err = load(ctx, tx, name) // the first query of load takes the snapshot
		}
		if err == nil && now.Fingerprint == known.Fingerprint {
			return tx, known, nil
		}
		Rollback(ctx, tx)
		if err != nil && !IsUndefinedTable(err) {
			return nil, nil, err
		}
		known = now // nil if the table is gone; the next attempt then loads whichever table has the name by then
	}
	return nil, nil, fmt.Errorf("read table %s: %w", name, ErrRedefined)
}

// loadUnlocked loads the table in a transaction that holds no lock on it. The transaction limits each wait for a lock, because
// pg_get_expr briefly locks the table that the expression belongs to.
func loadUnlocked(ctx context.Context, conn *pgx.Conn, name Name, load func(context.Context, Querier, Name) (*Table, error)) (*Table, error) {
	tx, err := Begin(ctx, conn, "READ ONLY")
	if err != nil {
		return nil, fmt.Errorf("begin to load table %s: %w", name, err)
	}
	defer Rollback(ctx, tx)
	// This statement must come after Begin, because Begin sets lock_timeout to 0 if the connection is through a pooler.
	if _, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", lockWait.Milliseconds()), pgx.QueryExecModeSimpleProtocol); err != nil {
		return nil, fmt.Errorf("limit the waits for locks: %w", err)
	}
	return load(ctx, tx, name)
}
