package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
)

const (
	// ddlLockTimeout bounds how long a statement of capture waits for a lock. The limit is short, because other sessions
	// that need the lock queue up behind the waiting statement.
	ddlLockTimeout = "2s"
	// ddlRetryPause is the pause between two attempts to run the statements. In this pause, sessions that queued up behind a
	// statement get their locks.
	ddlRetryPause = time.Second
	// ddlRetryTime bounds how long ApplyStatements retries.
	ddlRetryTime = time.Minute
)

// ApplyStatements runs statements in one transaction. Each statement waits only briefly for a lock, so the application never
// waits long behind the statement. If a statement does not get its lock, or if it meets a deadlock, for example with
// autovacuum, ApplyStatements runs all statements again later. It gives up after a minute, or when ctx ends.
func ApplyStatements(ctx context.Context, conn *pgx.Conn, statements []string) error {
	if len(statements) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, ddlRetryTime)
	defer cancel()
	for {
		err := runDDL(ctx, conn, statements)
		if !IsLockTimeout(err) && SQLState(err) != deadlockDetected {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(ddlRetryPause):
		}
	}
}

// runDDL runs statements in one transaction. It fails if a statement waits for a lock longer than ddlLockTimeout.
func runDDL(ctx context.Context, conn *pgx.Conn, statements []string) error {
	tx, err := Begin(ctx, conn, "ISOLATION LEVEL READ COMMITTED READ WRITE")
	if err != nil {
		return Explain(err)
	}
	defer func() { _ = tx.Rollback(context.WithoutCancel(ctx)) }()
	b := &pgx.Batch{}
	for _, s := range append([]string{"SET LOCAL lock_timeout = '" + ddlLockTimeout + "'"}, statements...) {
		b.Queue(s)
	}
	results := tx.SendBatch(ctx, b)
	for i := range b.Len() {
		if _, err = results.Exec(); err != nil {
			err = fmt.Errorf("%s: %w", b.QueuedQueries[i].SQL, err)
			break
		}
	}
	_ = results.Close() // Close returns the error that the loop found
	if err != nil {
		return Explain(err)
	}
	return Explain(tx.Commit(ctx))
}
