package capture

import (
	"errors"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/busy"
	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// roleSetUp creates a database with table votes, and sets the table up for logical replication by the given role. It returns a
// connection to the database, and the URL for the role.
func roleSetUp(t *testing.T, role string) (conn *pgx.Conn, roleURL string) {
	t.Helper()
	t.Cleanup(func() { dropRole(t, role) }) // runs after the database is dropped, because the role has privileges in the database
	db := pgserver.Database(t)
	conn = connect(t, db)
	exec(t, conn, "CREATE TABLE votes (vote_id serial PRIMARY KEY, comment text)")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
	return conn, setUpRole(t, conn, db, role)
}

// setUpRole runs the statements of `capture setup --source logical --role` for table votes, and returns the URL for that role.
func setUpRole(t *testing.T, conn *pgx.Conn, db, role string) (roleURL string) {
	t.Helper()
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
	return u.String()
}

// updateFails checks that the application's UPDATE of a table fails. If running is true, the UPDATE may also
// succeed, because capture may already have withdrawn its publication.
func updateFails(t *testing.T, conn *pgx.Conn, table string, running bool) {
	t.Helper()
	_, err := conn.Exec(t.Context(), "UPDATE "+table+" SET comment = 'b'")
	if err == nil && (!running || queryOne[bool](t, conn, "SELECT EXISTS (SELECT FROM pg_publication WHERE pubname = 'capture_votes')")) {
		t.Fatal("the update works although capture has withdrawn no publication")
	}
}

// updateWorks waits until the application's UPDATE of a table succeeds again.
func updateWorks(t *testing.T, conn *pgx.Conn, table string) {
	t.Helper()
	start := time.Now()
	for {
		_, err := conn.Exec(t.Context(), "UPDATE "+table+" SET comment = comment || 'b'")
		if err == nil {
			return
		}
		if time.Since(start) > busy.Limit(patience) {
			t.Fatalf("for %s: %v", time.Since(start), err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// TestDroppedKeyWithdrawsPublication: without a primary key, Postgres refuses UPDATE and DELETE of a published table. A
// running capture therefore withdraws the publication within seconds. capture also withdraws it at its start, even if
// something else is wrong with the table.
func TestDroppedKeyWithdrawsPublication(t *testing.T) {
	t.Parallel()
	conn, roleURL := roleSetUp(t, "withdraw_key")
	cfg := config(t, roleURL)
	cfg.timeouts.Check = 100 * time.Millisecond
	d := start(t, cfg)
	d.ready()
	exec(t, conn, "ALTER TABLE votes DROP CONSTRAINT votes_pkey")
	updateFails(t, conn, "votes", true)
	updateWorks(t, conn, "votes")
	exec(t, conn, "ALTER TABLE votes ADD PRIMARY KEY (vote_id)")
	exec(t, conn, "CREATE PUBLICATION capture_votes FOR TABLE votes WITH (publish_via_partition_root = true)") // as `capture setup` would create it
	exec(t, conn, "ALTER PUBLICATION capture_votes OWNER TO withdraw_key")
	d.flushAndCompare(conn, "votes", "vote_id")
	if err := d.stop(); err != nil {
		t.Fatal(err)
	}

	exec(t, conn, "ALTER TABLE votes DROP CONSTRAINT votes_pkey")
	exec(t, conn, "REVOKE SELECT ON votes FROM withdraw_key")
	updateFails(t, conn, "votes", false)
	start(t, cfg)
	updateWorks(t, conn, "votes")
}

const (
	identityTable = `CREATE TABLE votes (vote_id serial PRIMARY KEY, comment text, other int NOT NULL DEFAULT 1);
		CREATE UNIQUE INDEX votes_other ON votes (other)`
	partitionedIdentityTable = `CREATE TABLE votes (vote_id serial PRIMARY KEY, comment text) PARTITION BY RANGE (vote_id);
		CREATE TABLE votes_1 PARTITION OF votes FOR VALUES FROM (0) TO (100)`
)

// identityDamage lists statements after which a table has no usable replica identity.
var identityDamage = []struct {
	name, create string
	source       string
	damage       string // statements; ROLE stands for capture's role
	since        int    // first major version of Postgres in which this damage is possible
}{
	{"primary key dropped", identityTable, "logical", "ALTER TABLE votes DROP CONSTRAINT votes_pkey", 13},
	{"primary key dropped with its column", identityTable, "auto", "ALTER TABLE votes DROP COLUMN vote_id", 13},
	{"key deferrable", identityTable, "logical", "ALTER TABLE votes DROP CONSTRAINT votes_pkey, ADD PRIMARY KEY (vote_id) DEFERRABLE", 13},
	{"identity nothing", identityTable, "auto", "ALTER TABLE votes REPLICA IDENTITY NOTHING", 13},
	{"identity nothing, under notify", identityTable, "notify", "ALTER TABLE votes REPLICA IDENTITY NOTHING", 13},
	{"identity nothing, under poll", identityTable, "poll", "ALTER TABLE votes REPLICA IDENTITY NOTHING", 13},
	{"identity index dropped", identityTable + "; ALTER TABLE votes REPLICA IDENTITY USING INDEX votes_other", "logical", "DROP INDEX votes_other", 13},
	{"identity index and key dropped", identityTable + "; ALTER TABLE votes REPLICA IDENTITY USING INDEX votes_other", "auto", "DROP INDEX votes_other; ALTER TABLE votes DROP CONSTRAINT votes_pkey", 13},
	{"row-level security as well", identityTable, "logical", "ALTER TABLE votes DROP CONSTRAINT votes_pkey; ALTER TABLE votes ENABLE ROW LEVEL SECURITY", 13},
	{"no right to read as well", identityTable, "auto", "ALTER TABLE votes DROP CONSTRAINT votes_pkey; REVOKE SELECT ON votes FROM ROLE", 13},
	{"no right to use the schema as well", identityTable, "logical", "ALTER TABLE votes DROP CONSTRAINT votes_pkey; REVOKE USAGE ON SCHEMA public FROM public, ROLE", 13},
	{"an inheriting table as well", identityTable, "auto", "ALTER TABLE votes DROP CONSTRAINT votes_pkey; CREATE TABLE heir () INHERITS (votes)", 13},
	{"virtual column in a full identity", identityTable + "; ALTER TABLE votes REPLICA IDENTITY FULL", "logical", "ALTER TABLE votes ADD v int GENERATED ALWAYS AS (other + 1) VIRTUAL", 18},
	{"renamed away", identityTable, "auto", "ALTER TABLE votes RENAME TO old_votes; ALTER TABLE old_votes DROP CONSTRAINT votes_pkey", 13},
	{"moved to another schema", identityTable, "logical", "CREATE SCHEMA app; ALTER TABLE votes DROP CONSTRAINT votes_pkey; ALTER TABLE votes SET SCHEMA app", 13},
	{"replaced by another table", identityTable, "auto", `ALTER TABLE votes RENAME TO old_votes; CREATE TABLE votes (LIKE old_votes INCLUDING INDEXES);
		GRANT SELECT ON votes TO ROLE; ALTER TABLE old_votes DROP CONSTRAINT votes_pkey`, 13},
	{"partition with identity nothing", partitionedIdentityTable, "logical", "ALTER TABLE votes_1 REPLICA IDENTITY NOTHING", 13},
	{"partition with its index dropped", partitionedIdentityTable + "; CREATE UNIQUE INDEX one ON votes_1 (vote_id); ALTER TABLE votes_1 REPLICA IDENTITY USING INDEX one", "auto", "DROP INDEX one", 13},
	{"key of the partitioned table dropped", partitionedIdentityTable, "auto", "ALTER TABLE votes DROP CONSTRAINT votes_pkey", 13},
	{"another table in the publication", identityTable, "logical", "CREATE TABLE old_votes (vote_id int, comment text); INSERT INTO old_votes VALUES (1, 'a'); ALTER PUBLICATION capture_votes ADD TABLE old_votes", 13},
}

// TestLostIdentityWithdrawsPublication: after each kind of identityDamage, capture withdraws its publication, so the
// application's UPDATE and DELETE work again. In half of the cases, capture runs when the damage happens. In the other half,
// it starts afterwards.
func TestLostIdentityWithdrawsPublication(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for regular checks")
	}
	t.Parallel()
	for i, c := range identityDamage {
		for _, running := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/running=%t", c.name, running), func(t *testing.T) {
				t.Parallel()
				if pgserver.Shared(t).VersionNum() < c.since*10000 {
					t.Skipf("PostgreSQL %d has this", c.since)
				}
				role := fmt.Sprintf("lost_identity_%d_%t", i, running)
				t.Cleanup(func() { dropRole(t, role) })
				db := pgserver.Database(t)
				conn := connect(t, db)
				exec(t, conn, c.create)
				exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
				cfg := config(t, setUpRole(t, conn, db, role))
				cfg.Source, cfg.timeouts.Check, cfg.timeouts.Ping = c.source, 200*time.Millisecond, 200*time.Millisecond
				if c.source == "notify" {
					setUp(t, conn, "notify")
				}
				if running {
					start(t, cfg).ready()
				}
				exec(t, conn, strings.ReplaceAll(c.damage, "ROLE", role))
				name := queryOne[string](t, conn, "SELECT c.oid::regclass::text FROM pg_class c WHERE relname IN ('votes', 'old_votes') AND relkind IN ('r', 'p') ORDER BY relname LIMIT 1")
				updateFails(t, conn, name, running)
				if !running {
					start(t, cfg)
				}
				updateWorks(t, conn, name)
				if _, err := conn.Exec(t.Context(), "DELETE FROM "+name); err != nil {
					t.Error(err)
				}
			})
		}
	}
}

// TestLostIdentityWhileSlotWaits: a new slot waits for open transactions, perhaps for hours. If the table loses its replica
// identity during this wait, capture withdraws the publication without waiting for the slot.
func TestLostIdentityWhileSlotWaits(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for a plain read")
	}
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{}) // on a shared server, the open transaction would block the slots of other tests
	conn := connect(t, s.URL("postgres"))
	exec(t, conn, "CREATE TABLE votes (vote_id serial PRIMARY KEY, comment text)")
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('a')")
	holder := connect(t, s.URL("postgres"))
	exec(t, holder, "BEGIN; CREATE TABLE open_transaction ()")
	cfg := config(t, setUpRole(t, conn, s.URL("postgres"), "lost_identity_waiting"))
	d := start(t, cfg)
	eventually(t, "blocked", func() error {
		if c := d.Status().Checks[0].Detail; !strings.Contains(c, "write transactions") {
			return errors.New(c)
		}
		return nil
	})
	exec(t, conn, "ALTER TABLE votes REPLICA IDENTITY NOTHING")
	updateWorks(t, conn, "votes")
}

// TestDroppedKeyOfForeignPublication: if the table loses its key, and capture does not own the publication, the status shows
// the statement that drops the publication.
func TestDroppedKeyOfForeignPublication(t *testing.T) {
	t.Parallel()
	conn, roleURL := roleSetUp(t, "withdraw_foreign")
	exec(t, conn, "ALTER PUBLICATION capture_votes OWNER TO CURRENT_USER")
	cfg := config(t, roleURL)
	cfg.timeouts.Check = 100 * time.Millisecond
	d := start(t, cfg)
	d.ready()
	exec(t, conn, "ALTER TABLE votes DROP CONSTRAINT votes_pkey")
	d.notReady(`DROP PUBLICATION IF EXISTS "capture_votes"`)
	eventually(t, "the check that has an alert of its own", func() error {
		return failing(d.Status().Checks, "publication: ", `DROP PUBLICATION IF EXISTS "capture_votes"`)
	})
	exec(t, conn, "DROP PUBLICATION capture_votes")
	updateWorks(t, conn, "votes")
	eventually(t, "the check ends", func() error {
		if c, ok := d.check("publication"); ok {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}

// TestForeignPublicationUnderPoll: polling continues while somebody else's publication makes the application's writes fail.
// The status and an alert show the statement that drops this publication.
func TestForeignPublicationUnderPoll(t *testing.T) {
	t.Parallel()
	conn, roleURL := roleSetUp(t, "withdraw_poll")
	exec(t, conn, "ALTER PUBLICATION capture_votes OWNER TO CURRENT_USER")
	cfg := config(t, roleURL)
	cfg.Source, cfg.PollInterval, cfg.timeouts.Ping = "poll", 50*time.Millisecond, 100*time.Millisecond
	d := start(t, cfg)
	d.ready()
	exec(t, conn, "ALTER TABLE votes REPLICA IDENTITY NOTHING")
	var found Check
	eventually(t, "the condition", func() (err error) {
		var ok bool
		if found, ok = d.check("publication"); !ok || !strings.Contains(found.Detail, `DROP PUBLICATION IF EXISTS "capture_votes"`) {
			return fmt.Errorf("%+v", d.Status().Checks)
		}
		return nil
	})
	if !worthAlert(found) {
		t.Error("no alert")
	}
	exec(t, conn, "INSERT INTO votes (comment) VALUES ('polled')")
	d.follows(conn, "votes", "vote_id")
	exec(t, conn, "DROP PUBLICATION capture_votes")
	updateWorks(t, conn, "votes")
	eventually(t, "the condition ends", func() error {
		if c, ok := d.check("publication"); ok {
			return fmt.Errorf("%+v", c)
		}
		return nil
	})
}
