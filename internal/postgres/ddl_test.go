package postgres

import (
	"context"
	"testing"
	"time"
)

// TestApplyStatementsDoesNotBlockTheApplication checks that other writers can write while the statements of setup wait for
// an open transaction that locks the table. When this transaction ends, the statements succeed.
func TestApplyStatementsDoesNotBlockTheApplication(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for lock timeouts")
	}
	t.Parallel()
	conn, url := database(t, votesSQL)
	statements, err := SetupSQL(testContext(t), conn, loadTable(t, conn, "votes"), SetupOptions{Source: "notify"})
	if err != nil {
		t.Fatal(err)
	}
	writer := connectTo(t, url)
	run(t, writer, "BEGIN", "INSERT INTO votes (comment) VALUES ('open')")
	applied := make(chan error)
	go func() { applied <- ApplyStatements(context.Background(), conn, statements) }()
	other := connectTo(t, url)
	run(t, other, "SET lock_timeout = '20s'", "INSERT INTO votes (comment) VALUES ('other')")
	run(t, writer, "COMMIT")
	if err := <-applied; err != nil {
		t.Error(err)
	}
}

// TestApplyStatementsAfterDeadlock checks that a deadlock only delays the statements. For example, GRANT and CREATE
// PUBLICATION can be in a deadlock with autovacuum.
func TestApplyStatementsAfterDeadlock(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a deadlock")
	}
	t.Parallel()
	conn, url := database(t, "CREATE TABLE a (); CREATE TABLE b ()")
	other := connectTo(t, url)
	run(t, other, "SET deadlock_timeout = '30s'", "BEGIN", "LOCK TABLE b") // the other session never gives way
	applied := make(chan error, 1)
	go func() {
		applied <- ApplyStatements(context.Background(), conn, []string{"LOCK TABLE public.a", "LOCK TABLE public.b", "CREATE TABLE public.c ()"})
	}()
	watcher := connectTo(t, url)
	for free := true; free && len(applied) == 0; time.Sleep(5 * time.Millisecond) {
		if err := watcher.QueryRow(testContext(t), "SELECT cardinality(pg_blocking_pids($1)) = 0", conn.PgConn().PID()).Scan(&free); err != nil {
			t.Fatal(err)
		}
	}
	run(t, other, "LOCK TABLE a", "COMMIT")
	if err := <-applied; err != nil {
		t.Error(err)
	}
	run(t, watcher, "SELECT FROM c")
}
