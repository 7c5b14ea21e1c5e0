package capture

import (
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// roleSetUp sets a database up for logical replication by a role of its own, and returns the URL for that role.
func roleSetUp(t *testing.T, role string) (conn *pgx.Conn, roleURL string) {
	t.Helper()
	t.Cleanup(func() { dropRole(t, role) }) // after the database, where it has privileges
	db := pgserver.Database(t)
	conn = connect(t, db)
	exec(t, conn, "CREATE TABLE votes (vote_id serial PRIMARY KEY, comment text)")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
	table, err := postgres.LoadTable(t.Context(), conn, postgres.Name{Table: "votes"})
	if err != nil {
		t.Fatal(err)
	}
	statements, err := postgres.SetupSQL(t.Context(), conn, table, postgres.SetupOptions{Source: "logical", Role: role})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range statements {
		exec(t, conn, s)
	}
	u, err := url.Parse(db)
	if err != nil {
		t.Fatal(err)
	}
	u.User = url.User(role)
	return conn, u.String()
}

// updateWorks waits until the application's UPDATE goes through again.
func updateWorks(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	start := time.Now()
	for {
		_, err := conn.Exec(t.Context(), "UPDATE votes SET comment = comment || 'b'")
		if err == nil {
			return
		}
		if time.Since(start) > 15*time.Second {
			t.Fatalf("for %s: %v", time.Since(start), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestDroppedKeyWithdrawsPublication: without a primary key Postgres refuses UPDATE and DELETE of a published table. capture
// withdraws the publication within seconds while it runs, and at a start, whatever else is wrong with the table.
func TestDroppedKeyWithdrawsPublication(t *testing.T) {
	t.Parallel()
	conn, roleURL := roleSetUp(t, "withdraw_key")
	cfg := config(t, roleURL)
	cfg.Table = postgres.Name{Table: "votes"}
	d := start(t, cfg)
	d.ready()
	exec(t, conn, "ALTER TABLE votes DROP CONSTRAINT votes_pkey")
	if _, err := conn.Exec(t.Context(), "UPDATE votes SET comment = 'b'"); err == nil {
		t.Fatal("the update works at once: nothing to withdraw")
	}
	updateWorks(t, conn)
	exec(t, conn, "ALTER TABLE votes ADD PRIMARY KEY (vote_id)")
	exec(t, conn, "CREATE PUBLICATION capture_votes FOR TABLE votes WITH (publish_via_partition_root = true)") // as setup would
	exec(t, conn, "ALTER PUBLICATION capture_votes OWNER TO withdraw_key")
	d.equal(conn, "votes", "vote_id")
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}

	exec(t, conn, "ALTER TABLE votes DROP CONSTRAINT votes_pkey")
	exec(t, conn, "REVOKE SELECT ON votes FROM withdraw_key")
	start(t, cfg)
	updateWorks(t, conn)
}

// TestDroppedKeyOfForeignPublication: if capture does not own its publication, the status has the statement that drops it.
func TestDroppedKeyOfForeignPublication(t *testing.T) {
	t.Parallel()
	conn, roleURL := roleSetUp(t, "withdraw_foreign")
	exec(t, conn, "ALTER PUBLICATION capture_votes OWNER TO CURRENT_USER")
	cfg := config(t, roleURL)
	cfg.Table = postgres.Name{Table: "votes"}
	d := start(t, cfg)
	d.ready()
	exec(t, conn, "ALTER TABLE votes DROP CONSTRAINT votes_pkey")
	d.notReady(`DROP PUBLICATION IF EXISTS "capture_votes"`)
	exec(t, conn, "DROP PUBLICATION capture_votes")
	updateWorks(t, conn)
}
