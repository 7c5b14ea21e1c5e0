package restore

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
	"capture/internal/postgres"
)

const (
	// tableLockTimeout is the longest time that one attempt to lock the table takes. While an attempt waits for the lock,
	// other sessions' writes to the table wait, too. The timeout is longer than the server's deadlock_timeout (1 s), so that
	// autovacuum gives way within one attempt.
	tableLockTimeout = 2 * time.Second
	// rowLockTimeout is the time that a statement waits for another session's lock, for example on a row that a foreign key
	// refers to. Meanwhile, the application's writes to the table wait.
	rowLockTimeout = 5 * time.Second
	// maxLockedWrites is the maximum number of times that retryLocked runs a statement.
	maxLockedWrites = 6
	// defaultLockWait is the time for which a restore tries to lock the table.
	defaultLockWait = 5 * time.Minute
)

// lockTable locks the table against writes of other sessions until the end of the transaction, except in a dry run. Other
// sessions can still read. Because they cannot write, the comparison stays valid, and no insert takes a value from a sequence
// while setSequences sets the sequence. An attempt takes at most tableLockTimeout, and between its attempts lockTable holds no
// lock on the table, so no other session waits for long.
func lockTable(ctx context.Context, tx pgx.Tx, table *postgres.Table, o *Options, p *progress) error {
	if o.DryRun {
		return lockPartitions(ctx, tx, table)
	}
	wait := o.LockWait
	if wait == 0 {
		wait = defaultLockWait
	}
	for deadline := time.Now().Add(wait); ; {
		p.report("waiting for the table", 0, 0)
		err := withSavepoint(ctx, tx, func() error {
			return table.LockIn(ctx, tx, postgres.ShareRowExclusive, tableLockTimeout)
		})
		if err == nil {
			return setLockTimeout(ctx, tx, rowLockTimeout)
		}
		if !isLocked(err) || ctx.Err() != nil {
			return explain("lock table "+table.Name().String(), err)
		}
		holders := describeHolders(ctx, tx, table)
		if time.Now().After(deadline) {
			return &postgres.Problem{
				Summary: fmt.Sprintf("table %s is locked%s", table.Name(), holders), Err: err,
				Reason: fmt.Sprintf("a restore needs it without writers, and waited for %s", wait.Round(time.Second)),
				Hint:   "end that transaction (SELECT pg_terminate_backend(…) ends a session), or stop what writes, and try again",
			}
		}
		p.report("waiting for the table"+holders, 0, 0)
		awaitPartition(ctx, tx, table)
		select {
		case <-time.After(time.Second/2 + rand.N(time.Second)):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// lockPartitions takes the locks that the statements of a dry run need on a partitioned table and its partitions. Without
// lockPartitions, a statement would wait for one partition while it holds a lock on another, which could cause a deadlock;
// see [postgres.Table.LockIn].
func lockPartitions(ctx context.Context, tx pgx.Tx, table *postgres.Table) error {
	if !table.Partitioned {
		return nil
	}
	err := retryLocked(ctx, func() error {
		return withSavepoint(ctx, tx, func() error { return table.LockIn(ctx, tx, postgres.RowExclusive, rowLockTimeout) })
	})
	if err != nil {
		return explain("lock table "+table.Name().String(), err)
	}
	return setLockTimeout(ctx, tx, rowLockTimeout)
}

// lockToRead locks the definitions of a partitioned table and its partitions before a query reads the table; see
// [postgres.Table.Lock].
func lockToRead(ctx context.Context, tx pgx.Tx, table *postgres.Table) error {
	if !table.Partitioned {
		return nil
	}
	return explain("read table "+table.Name().String(), table.Lock(ctx, tx))
}

// awaitPartition waits for the lock on a partition that another session has locked, but at most for tableLockTimeout.
// lockTable calls it between its attempts, because LockIn does not wait for partitions, and an autovacuum of a partition
// gives way only to a session that waits. awaitPartition holds no lock on the table while it waits, and keeps no lock when
// it returns. If it fails, lockTable just tries again.
func awaitPartition(ctx context.Context, tx pgx.Tx, table *postgres.Table) {
	if !table.Partitioned {
		return
	}
	_ = peek(ctx, tx, func() error {
		partitions, err := queryTexts(ctx, tx, lockedPartitionSQL, int64(table.OID))
		if err != nil || len(partitions) == 0 {
			return err
		}
		if err := setLockTimeout(ctx, tx, tableLockTimeout); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "LOCK TABLE ONLY "+partitions[0]+" IN SHARE ROW EXCLUSIVE MODE")
		return err
	})
}

func setLockTimeout(ctx context.Context, tx pgx.Tx, timeout time.Duration) error {
	_, err := tx.Exec(ctx, fmt.Sprintf("SET LOCAL lock_timeout = %d", timeout.Milliseconds()))
	return explain("set a time-out for locks", err)
}

// isLocked reports whether a statement failed because of another session's lock.
func isLocked(err error) bool {
	state := postgres.SQLState(err)
	return state == lockNotAvailable || state == deadlockDetected
}

// retryLocked runs f, and repeats it if another session's lock made it fail. It runs f at most maxLockedWrites times. f must
// change nothing if it fails.
func retryLocked(ctx context.Context, f func() error) (err error) {
	for range maxLockedWrites {
		if err = f(); !isLocked(err) || ctx.Err() != nil {
			break
		}
	}
	return err
}

// heldLocksSQL contains the FROM and WHERE clauses of a query. The query finds the locks on the table and its partitions
// that conflict with a SHARE ROW EXCLUSIVE lock ("Explicit Locking" in Postgres' documentation), and the sessions that hold
// these locks. $1 is the table's OID.
var heldLocksSQL = `
	FROM pg_catalog.pg_locks l JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid
	WHERE l.locktype = 'relation' AND l.granted AND l.pid <> pg_catalog.pg_backend_pid()
		AND l.database = (SELECT d.oid FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database())
		AND l.relation IN ` + postgres.TreeSQL("$1::bigint") + `
		AND l.mode NOT IN ('AccessShareLock', 'RowShareLock')`

// holdersSQL describes the sessions that hold the locks of heldLocksSQL.
var holdersSQL = `
	SELECT DISTINCT 'process ' || a.pid || COALESCE(' of ' || NULLIF(a.usename::text, ''), '') || COALESCE(' (' || NULLIF(a.application_name, '') || ')', '')
		|| COALESCE(', ' || a.state || ' for ' || pg_catalog.date_trunc('second', pg_catalog.clock_timestamp() - a.xact_start)::text, '')` +
	heldLocksSQL + `
	ORDER BY 1 LIMIT 3`

// lockedPartitionSQL selects the quoted name of a partition on which heldLocksSQL finds a lock. The search path is empty, so
// the name has a schema.
var lockedPartitionSQL = `SELECT l.relation::pg_catalog.regclass::text` + heldLocksSQL + ` AND l.relation <> $1::bigint LIMIT 1`

// describeHolders returns who holds the table's locks, for a message: ", by process 17 of app (worker), idle in transaction for
// 00:01:02". It returns "" if it finds nobody.
func describeHolders(ctx context.Context, tx pgx.Tx, table *postgres.Table) string {
	var holders []string
	err := withSavepoint(ctx, tx, func() (err error) {
		holders, err = queryTexts(ctx, tx, holdersSQL, int64(table.OID))
		return err
	})
	if err != nil || len(holders) == 0 {
		return ""
	}
	return ", by " + foreign.Text(strings.Join(holders, "; "))
}
