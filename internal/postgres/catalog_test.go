package postgres

import (
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestCatalogAfterUnreadResult lets the batch that prepares the catalog query fail: the server prepares the statement, but
// capture cannot read an earlier result, so it does not learn that the statement exists. The test checks that the session
// can still read the catalog. The session prepares a second statement for that, and uses it from then on.
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

// TestCatalogAfterFailedTransaction checks that a session can read the catalog again after the transaction that prepared the
// catalog query has failed. The prepared statement outlives the rollback, so the session must not prepare it again.
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
