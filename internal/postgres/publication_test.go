package postgres

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// ensure loads the table, calls EnsurePublication, and returns the table and the publication's name.
func ensure(t *testing.T, conn *pgx.Conn, name string) (*Table, string, error) {
	t.Helper()
	table := loadTable(t, conn, name)
	s, err := LoadServer(testContext(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	pub, fingerprint, err := EnsurePublication(testContext(t), conn, &s, table)
	if err == nil {
		if same := publicationFingerprint(t, conn, table, pub); same != fingerprint {
			t.Errorf("the fingerprint is %q, and then %q", fingerprint, same)
		}
	}
	return table, pub, err
}

func wantPublication(t *testing.T, conn *pgx.Conn, name, want string) *Table {
	t.Helper()
	table, pub, err := ensure(t, conn, name)
	if err != nil || pub != want {
		t.Fatalf("got publication %q, %v; want %q", pub, err, want)
	}
	return table
}

func TestEnsurePublicationCreatesAndRepairs(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL)
	wantPublication(t, conn, "votes", "capture_votes")
	votesFingerprint := func() string {
		t.Helper()
		return publicationFingerprint(t, conn, loadTable(t, conn, "votes"), "capture_votes")
	}
	before := votesFingerprint()
	wantPublication(t, conn, "votes", "capture_votes")
	run(t, conn, "INSERT INTO votes DEFAULT VALUES; CREATE TABLE other (id int PRIMARY KEY)")
	if votesFingerprint() != before {
		t.Error("the fingerprint changed without need")
	}
	var description string
	if err := conn.QueryRow(testContext(t), "SELECT obj_description(oid) FROM pg_publication").Scan(&description); err != nil ||
		!strings.HasPrefix(description, "capture ") {
		t.Errorf("the comment is %q, %v", description, err)
	}
	for _, s := range []string{
		"ALTER PUBLICATION capture_votes SET (publish = 'insert')", "ALTER PUBLICATION capture_votes DROP TABLE votes",
		"ALTER TABLE votes RENAME TO votes_old; " + votesSQL, "DROP TABLE votes; " + votesSQL,
		"ALTER PUBLICATION capture_votes DROP TABLE votes; ALTER PUBLICATION capture_votes ADD TABLE votes",
		"ALTER PUBLICATION capture_votes RENAME TO gone; DROP PUBLICATION gone",
	} {
		before := votesFingerprint()
		run(t, conn, strings.ReplaceAll(s, "serial", "int"))
		if votesFingerprint() == before {
			t.Errorf("after %s the fingerprint is as before", s)
		}
		wantPublication(t, conn, "votes", "capture_votes")
	}
	if majorVersion(conn.PgConn().ParameterStatus("server_version")) >= 15 {
		for _, s := range []string{"ALTER PUBLICATION capture_votes SET TABLE votes WHERE (vote_id > 5)",
			"ALTER PUBLICATION capture_votes SET TABLE votes (vote_id, comment)"} {
			before := votesFingerprint()
			run(t, conn, s)
			if votesFingerprint() == before {
				t.Errorf("after %s the fingerprint is as before", s)
			}
			wantPublication(t, conn, "votes", "capture_votes")
		}
	}
}

func TestEnsurePublicationUsesAnyCompletePublication(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL, "CREATE PUBLICATION inserts FOR TABLE votes WITH (publish = 'insert')",
		"CREATE PUBLICATION everything FOR ALL TABLES",
		"CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE p1 PARTITION OF p DEFAULT")
	wantPublication(t, conn, "votes", "everything")
	// The publication "everything" publishes partitions under their own names, so it does not have the changes of p.
	wantPublication(t, conn, "p", "capture_p")
	run(t, conn, "ALTER PUBLICATION everything SET (publish_via_partition_root = true)", "DROP PUBLICATION capture_p")
	wantPublication(t, conn, "p", "everything")
	wantPublication(t, conn, "p1", "capture_p1")
}

func TestEnsurePublicationWithoutPrivilege(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL, "DROP ROLE IF EXISTS capture_test_nobody", "CREATE ROLE capture_test_nobody", "GRANT SELECT ON votes TO capture_test_nobody",
		"SET ROLE capture_test_nobody")
	t.Cleanup(func() {
		run(t, conn, "RESET ROLE", "DROP OWNED BY capture_test_nobody", "DROP ROLE capture_test_nobody")
	})
	_, _, err := ensure(t, conn, "votes")
	wantProblem(t, err, `CREATE PUBLICATION "capture_votes" FOR TABLE "public"."votes"`)
	run(t, conn, "RESET ROLE", "ALTER TABLE votes OWNER TO capture_test_nobody", "SET ROLE capture_test_nobody")
	s, table, err := LoadServerAndTable(testContext(t), conn, Name{Table: "votes"})
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = FindPublication(testContext(t), conn, &s, table) // FindPublication notices the missing privilege without creating anything
	wantProblem(t, err, "GRANT CREATE ON DATABASE "+QuoteIdentifier(s.Database)+` TO "capture_test_nobody";`)
	statements, err := SetupSQL(testContext(t), conn, table, SetupOptions{Source: "logical", Complete: true}) // the statements are for a superuser
	if err != nil || !slices.Contains(statements, `ALTER PUBLICATION "capture_votes" OWNER TO "capture_test_nobody"`) {
		t.Errorf("the table's owner would not own the publication: %q, %v", statements, err)
	}
	run(t, conn, "RESET ROLE", "GRANT CREATE ON DATABASE "+QuoteIdentifier(s.Database)+" TO capture_test_nobody", "SET ROLE capture_test_nobody")
	if s, table, err = LoadServerAndTable(testContext(t), conn, Name{Table: "votes"}); err != nil {
		t.Fatal(err)
	}
	if _, _, err = FindPublication(testContext(t), conn, &s, table); !errors.Is(err, ErrPublicationMissing) {
		t.Errorf("with CREATE: %v", err)
	}
	run(t, conn, "RESET ROLE", "ALTER TABLE votes OWNER TO CURRENT_USER", "GRANT SELECT ON votes TO capture_test_nobody", "CREATE PUBLICATION capture_votes FOR TABLE votes WITH (publish = 'delete')", "SET ROLE capture_test_nobody")
	_, _, err = ensure(t, conn, "votes")
	wantProblem(t, err, `ALTER PUBLICATION "capture_votes"`)
	run(t, conn, "RESET ROLE", "ALTER PUBLICATION capture_votes SET (publish = 'insert, update, delete, truncate')", "SET ROLE capture_test_nobody")
	wantPublication(t, conn, "votes", "capture_votes")
}

func TestPublishedColumns(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, "CREATE TABLE t (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id + 1) STORED)",
		"CREATE PUBLICATION everything FOR ALL TABLES")
	version := majorVersion(conn.PgConn().ParameterStatus("server_version"))
	if c := wantPublication(t, conn, "t", "everything").Columns; !c[0].Published || c[1].Published {
		t.Errorf("in another's publication: %+v", c)
	}
	run(t, conn, "DROP PUBLICATION everything")
	if c := wantPublication(t, conn, "t", "capture_t").Columns; !c[0].Published || c[1].Published != (version >= 18) {
		t.Errorf("in capture's publication: %+v", c)
	}
}
