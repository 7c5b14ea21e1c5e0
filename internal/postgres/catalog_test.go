package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestCatalogAfterUnreadResult checks that a session can read the catalog after it failed to read a result of the batch that
// prepares the catalog query. The server has prepared the statement, but capture does not learn that. So the session prepares a
// second statement, and uses this statement from then on.
func TestCatalogAfterUnreadResult(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL)
	prepared := func() (n int) {
		t.Helper()
		if err := conn.QueryRow(testContext(t), "SELECT count(*) FROM pg_prepared_statements WHERE name LIKE 'capture_catalog%'").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	var row catalogRow
	b := &pgx.Batch{}
	b.Queue("SELECT NULL::text").QueryRow(func(r pgx.Row) error {
		var s string
		return r.Scan(&s)
	})
	row.queueCatalog(b, conn, Name{Table: "votes"}, true)
	if err := conn.SendBatch(testContext(t), b).Close(); err == nil || row.read || conn.IsClosed() {
		t.Fatalf("the batch was read: %v", err)
	}
	if n := prepared(); n != 1 {
		t.Fatalf("%d statements are prepared", n)
	}
	for range 3 {
		loadTable(t, conn, "votes")
		if n := prepared(); n != 2 {
			t.Errorf("%d statements are prepared", n)
		}
	}
}

// TestCatalogAfterFailedTransaction checks that a statement that was prepared in a failed transaction outlives the transaction,
// and is not prepared again.
func TestCatalogAfterFailedTransaction(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL)
	tx, err := conn.Begin(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := LoadTable(testContext(t), tx, Name{Table: "votes"}); err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(testContext(t), "SELECT 1/0"); err == nil {
		t.Error("the transaction has not failed")
	}
	if err := tx.Rollback(testContext(t)); err != nil {
		t.Fatal(err)
	}
	loadTable(t, conn, "votes")
}
