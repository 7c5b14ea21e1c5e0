package postgres

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// ensure is EnsurePublication for the table as it is now.
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

// publicationFingerprint returns the publication's fingerprint with regard to the table, by a query of its own.
func publicationFingerprint(t *testing.T, conn *pgx.Conn, table *Table, publication string) (fingerprint string) {
	t.Helper()
	if err := conn.QueryRow(testContext(t), publicationFingerprintSQL(conn), publication, table.OID).Scan(&fingerprint); err != nil {
		t.Fatal(err)
	}
	return fingerprint
}

func wantProblem(t *testing.T, err error, word string) {
	t.Helper()
	var p *Problem
	if !errors.As(err, &p) || !strings.Contains(p.Error(), word) {
		t.Errorf("got %v, want a problem with %q", err, word)
	}
}

func TestEnsurePublicationMakesAndMends(t *testing.T) {
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
	if conn.PgConn().ParameterStatus("server_version") >= "15" {
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

// TestPublicationFingerprintOfSchemas: since 15 a publication may hold all tables of a schema.
func TestPublicationFingerprintOfSchemas(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL)
	if majorVersion(conn.PgConn().ParameterStatus("server_version")) < 15 {
		return // it knows no such publication
	}
	run(t, conn, "CREATE SCHEMA other", "CREATE PUBLICATION all_here FOR TABLES IN SCHEMA public",
		"CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE other.p1 PARTITION OF p DEFAULT")
	for _, name := range []string{"votes", "other.p1"} {
		fingerprint := func() string {
			t.Helper()
			return publicationFingerprint(t, conn, loadTable(t, conn, name), "all_here")
		}
		first := fingerprint()
		run(t, conn, "CREATE SCHEMA IF NOT EXISTS third", "ALTER PUBLICATION all_here ADD TABLES IN SCHEMA third",
			"ALTER PUBLICATION all_here DROP TABLES IN SCHEMA third")
		if fingerprint() != first {
			t.Errorf("%s: the fingerprint changed without need", name)
		}
		run(t, conn, "ALTER PUBLICATION all_here DROP TABLES IN SCHEMA public")
		without := fingerprint()
		run(t, conn, "ALTER PUBLICATION all_here ADD TABLES IN SCHEMA public")
		if again := fingerprint(); without == first || again == without || again == first {
			t.Errorf("%s: the fingerprints are %q, without the schema %q, again with it %q", name, first, without, again)
		}
	}
}

func TestEnsurePublicationUsesAnotherThatServes(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL, "CREATE PUBLICATION inserts FOR TABLE votes WITH (publish = 'insert')",
		"CREATE PUBLICATION everything FOR ALL TABLES",
		"CREATE TABLE p (id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE p1 PARTITION OF p DEFAULT")
	wantPublication(t, conn, "votes", "everything")
	wantPublication(t, conn, "p", "capture_p") // everything publishes its partitions under their own names
	run(t, conn, "ALTER PUBLICATION everything SET (publish_via_partition_root = true)", "DROP PUBLICATION capture_p")
	wantPublication(t, conn, "p", "everything")
	wantPublication(t, conn, "p1", "capture_p1")
}

func TestEnsurePublicationWithoutTheRight(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL, "DROP ROLE IF EXISTS capture_test_nobody", "CREATE ROLE capture_test_nobody", "GRANT SELECT ON votes TO capture_test_nobody",
		"SET ROLE capture_test_nobody")
	t.Cleanup(func() {
		run(t, conn, "RESET ROLE", "DROP OWNED BY capture_test_nobody", "DROP ROLE capture_test_nobody")
	})
	_, _, err := ensure(t, conn, "votes")
	wantProblem(t, err, `CREATE PUBLICATION "capture_votes" FOR TABLE "public"."votes"`)
	run(t, conn, "RESET ROLE", "CREATE PUBLICATION capture_votes FOR TABLE votes WITH (publish = 'delete')", "SET ROLE capture_test_nobody")
	_, _, err = ensure(t, conn, "votes")
	wantProblem(t, err, `ALTER PUBLICATION "capture_votes"`)
	run(t, conn, "RESET ROLE", "ALTER PUBLICATION capture_votes SET (publish = 'insert, update, delete, truncate')", "SET ROLE capture_test_nobody")
	wantPublication(t, conn, "votes", "capture_votes")
}

// TestNoHarmByPublication: the application's writes work after whatever EnsurePublication did.
func TestNoHarmByPublication(t *testing.T) {
	t.Parallel()
	conn, _ := database(t)
	version := majorVersion(conn.PgConn().ParameterStatus("server_version"))
	for i, c := range []struct {
		since           int
		columns, change string
		refused         string
	}{
		{13, "id int PRIMARY KEY DEFERRABLE, x int", "", "deferrable"},
		{13, "id int PRIMARY KEY, x int", "ALTER TABLE %s REPLICA IDENTITY NOTHING", "nothing"},
		{13, "id int PRIMARY KEY, x int NOT NULL UNIQUE", "ALTER TABLE %[1]s REPLICA IDENTITY USING INDEX %[1]s_x_key; ALTER TABLE %[1]s DROP CONSTRAINT %[1]s_x_key", "index is gone"},
		{13, "id int PRIMARY KEY, x int", "ALTER TABLE %s REPLICA IDENTITY FULL", ""},
		{13, "id int PRIMARY KEY DEFERRABLE, x int, g int GENERATED ALWAYS AS (id + 1) STORED", "ALTER TABLE %s REPLICA IDENTITY FULL", ""},
		{18, "id int PRIMARY KEY, x int, g int GENERATED ALWAYS AS (id + 1) VIRTUAL", "", ""},
		{18, "id int PRIMARY KEY, x int, g int GENERATED ALWAYS AS (id + 1) VIRTUAL", "ALTER TABLE %s REPLICA IDENTITY FULL", "virtual"},
		{18, "id int, x int, g int GENERATED ALWAYS AS (id + 1) STORED PRIMARY KEY", "", ""},
	} {
		if version < c.since {
			continue
		}
		name := fmt.Sprintf("t%d", i)
		// Once where the table is unfit from the start, once where it becomes so under a publication of ours.
		for _, before := range []bool{false, !strings.Contains(c.columns, "DEFERRABLE")} {
			run(t, conn, "DROP TABLE IF EXISTS "+name, "CREATE TABLE "+name+" ("+c.columns+")", "INSERT INTO "+name+" VALUES (1, 1)")
			if before && c.change != "" {
				wantPublication(t, conn, name, "capture_"+name)
			}
			if c.change != "" {
				run(t, conn, strings.Split(fmt.Sprintf(c.change, name), "; ")...)
			}
			_, _, err := ensure(t, conn, name)
			if c.refused == "" && err != nil {
				t.Errorf("%s: %v", c.columns, err)
			} else if c.refused != "" {
				wantProblem(t, err, c.refused)
			}
			run(t, conn, "UPDATE "+name+" SET x = 2", "UPDATE "+name+" SET id = 3", "DELETE FROM "+name)
		}
	}
}

func TestPartitionsNeedTheirTablesIdentity(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, "CREATE TABLE p (id int PRIMARY KEY, x int) PARTITION BY RANGE (id)",
		"CREATE TABLE p1 PARTITION OF p DEFAULT PARTITION BY RANGE (id)", "CREATE TABLE p2 (id int PRIMARY KEY, x int NOT NULL UNIQUE)",
		"ALTER TABLE p1 ATTACH PARTITION p2 DEFAULT")
	wantPublication(t, conn, "p", "capture_p")
	for change, word := range map[string]string{
		"ALTER TABLE p2 REPLICA IDENTITY NOTHING": "no usable", "ALTER TABLE p2 REPLICA IDENTITY USING INDEX p2_x_key": "another",
		"ALTER TABLE p2 SET UNLOGGED": "SET LOGGED", "ALTER TABLE p2 REPLICA IDENTITY FULL": "", "ALTER TABLE p2 REPLICA IDENTITY USING INDEX p2_pkey": "",
	} {
		run(t, conn, change)
		_, _, err := ensure(t, conn, "p")
		if word == "" && err != nil || word != "" && err == nil {
			t.Errorf("%s: %v", change, err)
		} else if word != "" {
			wantProblem(t, err, word)
		}
		run(t, conn, "ALTER TABLE p2 REPLICA IDENTITY DEFAULT", "ALTER TABLE p2 SET LOGGED")
	}
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

func TestObjectNames(t *testing.T) {
	t.Parallel()
	seen := map[string]Name{}
	for _, n := range []Name{{Schema: "public", Table: "votes"}, {Schema: "public", Table: "Votes"}, {Schema: "app", Table: "votes"}, {Schema: "public", Table: "app__votes"},
		{Schema: "public", Table: "app_votes"}, {Schema: "app_", Table: "votes"}, {Schema: "app", Table: "_votes"}, {Schema: "public", Table: "größe"}, {Schema: "public", Table: "gr__e"},
		{Schema: "public", Table: strings.Repeat("x", 63)}, {Schema: "public", Table: strings.Repeat("x", 62) + "y"}} {
		name := objectName(n)
		if other, ok := seen[name]; ok || len(name) > maxNameBytes {
			t.Errorf("%s is called %s, as %s", n, name, other)
		}
		seen[name] = n
	}
	if seen["capture_votes"].Table != "votes" || seen["capture_app__votes"].Schema != "app" {
		t.Errorf("names are %v", seen)
	}
}
