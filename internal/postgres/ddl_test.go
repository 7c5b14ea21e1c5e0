package postgres

import (
	"context"
	"testing"
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
