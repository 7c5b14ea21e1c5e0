package postgres

import (
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
)

// setup runs the statements of SetupSQL, checks that nothing is left to do, and returns them.
func setup(t *testing.T, conn *pgx.Conn, name string, o SetupOptions) []string {
	t.Helper()
	table := loadTable(t, conn, name)
	statements, err := SetupSQL(testContext(t), conn, table, o)
	if err != nil {
		t.Fatal(err)
	}
	if err := ApplyStatements(testContext(t), conn, statements); err != nil {
		t.Fatal(err)
	}
	if again, err := SetupSQL(testContext(t), conn, table, o); err != nil || len(again) > 0 {
		t.Errorf("a second setup would run %q, %v", again, err)
	}
	return statements
}

func teardown(t *testing.T, conn *pgx.Conn, name, role string) {
	t.Helper()
	n, err := ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	found, err := LoadTeardown(testContext(t), conn, n, role)
	if err != nil || len(found.Kept) > 0 {
		t.Fatal(found.Kept, err)
	}
	if err := ApplyStatements(testContext(t), conn, found.Statements); err != nil {
		t.Fatal(err)
	}
	if again, err := LoadTeardown(testContext(t), conn, n, role); err != nil || len(again.Statements) > 0 {
		t.Errorf("a second teardown would run %q, %v", again.Statements, err)
	}
}

func TestSetupRoleSufficesForLogical(t *testing.T) {
	t.Parallel()
	conn, url := database(t, "CREATE SCHEMA app", strings.Replace(votesSQL, "votes", "app.votes", 1),
		"DROP ROLE IF EXISTS capture_test_least", "DROP ROLE IF EXISTS capture_test_owner", "CREATE ROLE capture_test_owner",
		"ALTER TABLE app.votes OWNER TO capture_test_owner")
	run(t, conn, "REVOKE CONNECT ON DATABASE "+QuoteIdentifier(currentDatabase(t, url))+" FROM public")
	t.Cleanup(func() { run(t, conn, "DROP OWNED BY capture_test_owner CASCADE", "DROP ROLE capture_test_owner") })
	statements := setup(t, conn, "app.votes", SetupOptions{Source: "auto", Role: "capture_test_least"})
	if all := strings.Join(statements, "; "); !strings.Contains(all, `CREATE PUBLICATION "capture_app__votes"`) || strings.Contains(all, "TRIGGER") {
		t.Errorf("ran %s", all)
	}
	cfg, err := ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.User = "capture_test_least"
	least, err := Connect(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	wantPublication(t, least, "app.votes", "capture_app__votes")
	repl, err := ConnectReplication(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := repl.Exec(testContext(t), "CREATE_REPLICATION_SLOT capture_test_least TEMPORARY LOGICAL pgoutput").Close(); err != nil {
		t.Error(err)
	}
	if _, err := least.Exec(testContext(t), "DELETE FROM app.votes"); SQLState(err) != insufficientPrivilege {
		t.Errorf("the role may delete: %v", err)
	}
	repl.Close(context.Background())
	least.Close(context.Background())
	teardown(t, conn, "app.votes", "capture_test_least")
}

// TestSetupAsksForNotify checks that setup refuses a table with a deferrable key unless the source is "notify", because a
// publication would make the application's updates and deletes fail. Without --source, the error names the command that creates
// triggers.
func TestSetupAsksForNotify(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, "CREATE TABLE t (id int PRIMARY KEY DEFERRABLE)")
	for _, source := range []string{"logical", "auto"} {
		if statements, err := SetupSQL(testContext(t), conn, loadTable(t, conn, "t"), SetupOptions{Source: source, Role: "capture_test_asks"}); err == nil {
			t.Errorf("set up for %s: %q", source, statements)
		} else if source == "auto" {
			wantProblem(t, err, "capture setup --source notify --table public.t")
			wantProblem(t, err, "deferrable")
		}
	}
	setup(t, conn, "t", SetupOptions{Source: "notify"})
	if err := CheckTriggers(testContext(t), conn, loadTable(t, conn, "t")); err != nil {
		t.Error(err)
	}
	run(t, conn, "DROP TABLE t")
	teardown(t, conn, "t", "")
}

// TestCompleteSetupNeedsNoMoreRights checks the setup that the table's owner prints for a new role. It must be the same as
// the setup that a superuser prints, although the owner may not create roles. After a superuser has run the statements,
// nothing is left to do: the role owns the publication and may replicate.
func TestCompleteSetupNeedsNoMoreRights(t *testing.T) {
	t.Parallel()
	const owner, role = "capture_test_prints", "capture_test_printed"
	conn, url := database(t, votesSQL, "DROP ROLE IF EXISTS "+owner, "DROP ROLE IF EXISTS "+role, "CREATE ROLE "+owner+" LOGIN", "ALTER TABLE votes OWNER TO "+owner)
	t.Cleanup(func() {
		run(t, conn, "DROP OWNED BY "+owner+" CASCADE", "DROP ROLE "+owner, "DROP OWNED BY "+role, "DROP ROLE "+role)
	})
	user := connectAs(t, url, owner)
	setupSQL := func(conn *pgx.Conn) []string {
		t.Helper()
		statements, err := SetupSQL(testContext(t), conn, loadTable(t, conn, "votes"), SetupOptions{Source: "logical", Role: role, Complete: true})
		if err != nil {
			t.Fatal(err)
		}
		return statements
	}
	statements := setupSQL(user)
	if bySuperuser := setupSQL(conn); !slices.Equal(statements, bySuperuser) {
		t.Errorf("the owner prints\n%s, and a superuser\n%s", strings.Join(statements, "\n"), strings.Join(bySuperuser, "\n"))
	}
	if err := ApplyStatements(testContext(t), conn, statements); err != nil {
		t.Fatal(err)
	}
	if again := setupSQL(user); len(again) > 0 {
		t.Errorf("a second setup would run %q", again)
	}
	var publicationOwner string
	var replicates bool
	err := conn.QueryRow(testContext(t), "SELECT pg_get_userbyid(p.pubowner), r.rolreplication FROM pg_publication p, pg_roles r WHERE r.rolname = $1", role).
		Scan(&publicationOwner, &replicates)
	if err != nil || publicationOwner != role || !replicates {
		t.Errorf("the publication belongs to %s; the role may replicate: %t; %v", publicationOwner, replicates, err)
	}

	// If the publication and the role exist, but the publication has another owner and the role may not replicate, the table's
	// owner prints only the two statements that correct this.
	run(t, conn, "ALTER PUBLICATION capture_votes OWNER TO CURRENT_USER", "ALTER ROLE "+role+" NOREPLICATION")
	if rest := setupSQL(user); len(rest) != 2 || !slices.Equal(rest, setupSQL(conn)) {
		t.Errorf("with an incomplete role, the owner prints %q", rest)
	}
}

// TestRolePrintsSetupForAdministrator checks the setup that capture's own role prints on Amazon RDS and Azure. An
// administrator can run this setup without being a superuser or a member of the role. Afterwards, the administrator is still
// not a member.
func TestRolePrintsSetupForAdministrator(t *testing.T) {
	t.Parallel()
	for _, marker := range []string{"rds_superuser", "azure_pg_admin"} {
		t.Run(marker, func(t *testing.T) {
			t.Parallel()
			url := pgserver.ForTest(t, pgserver.Options{}).URL("postgres")
			conn := connectTo(t, url)
			run(t, conn, "CREATE ROLE "+marker, "CREATE ROLE rds_replication", "CREATE ROLE admin LOGIN CREATEROLE REPLICATION",
				"GRANT "+marker+" TO admin", "GRANT rds_replication TO admin WITH ADMIN OPTION", "ALTER DATABASE postgres OWNER TO admin", votesSQL, "ALTER TABLE votes OWNER TO admin")
			admin := connectAs(t, url, "admin")
			run(t, admin, "CREATE ROLE follower LOGIN", "GRANT SELECT ON votes TO follower")
			if marker == "azure_pg_admin" { // on Azure, administrators may grant REPLICATION
				run(t, conn, "ALTER ROLE follower REPLICATION")
			}
			follower := connectAs(t, url, "follower")
			const publication = "CREATE PUBLICATION capture_votes FOR TABLE votes WITH (publish_via_partition_root = true); ALTER PUBLICATION capture_votes OWNER TO admin"
			for _, before := range []string{
				"SELECT",
				"GRANT CREATE ON DATABASE postgres TO follower",
				"REVOKE CREATE ON DATABASE postgres FROM follower",
				publication,
				publication + "; ALTER PUBLICATION capture_votes DROP TABLE votes; GRANT CREATE ON DATABASE postgres TO follower; " +
					"ALTER PUBLICATION capture_votes OWNER TO follower; REVOKE CREATE ON DATABASE postgres FROM follower",
				"ALTER TABLE votes OWNER TO follower",
			} {
				for _, statement := range strings.Split(before, "; ") {
					run(t, conn, statement)
				}
				printed, err := SetupSQL(testContext(t), follower, loadTable(t, follower, "votes"), SetupOptions{Source: "logical", Role: "follower", Complete: true})
				if err != nil {
					t.Fatal(err)
				}
				if err := ApplyStatements(testContext(t), admin, printed); err != nil {
					t.Fatalf("%s: %v\n%s", before, err, strings.Join(printed, "\n"))
				}
				var owner string
				var member bool
				err = admin.QueryRow(testContext(t), `SELECT pg_get_userbyid(pubowner)::text, pg_has_role('admin', 'follower', 'USAGE')
					FROM pg_publication WHERE pubname = 'capture_votes'`).Scan(&owner, &member)
				if err != nil || owner != "follower" || member {
					t.Errorf("%s: the publication belongs to %s, the administrator is a member: %t, %v", before, owner, member, err)
				}
				again, err := SetupSQL(testContext(t), follower, loadTable(t, follower, "votes"), SetupOptions{Source: "logical", Role: "follower", Complete: true})
				if err != nil || len(again) > 0 {
					t.Errorf("%s: a second setup would run %q, %v", before, again, err)
				}
				run(t, conn, "DROP PUBLICATION capture_votes")
			}
		})
	}
}

// TestReplacedTableIsAddedAgain checks the hints after the table was dropped and created again, which removes it from the
// publication. Neither capture's role nor the table's owner may add it, because the role owns only the publication and the
// owner only the table. Each of them gets a hint with the statement that adds it, and setup prints the same statement.
func TestReplacedTableIsAddedAgain(t *testing.T) {
	t.Parallel()
	const owner, role = "capture_test_replaces", "capture_test_replaced"
	conn, url := database(t, votesSQL, "DROP ROLE IF EXISTS "+owner, "DROP ROLE IF EXISTS "+role, "CREATE ROLE "+owner+" LOGIN", "ALTER TABLE votes OWNER TO "+owner)
	t.Cleanup(func() {
		run(t, conn, "DROP OWNED BY "+owner+" CASCADE", "DROP ROLE "+owner, "DROP OWNED BY "+role, "DROP ROLE "+role)
	})
	setup(t, conn, "votes", SetupOptions{Source: "logical", Role: role})
	run(t, conn, "DROP TABLE votes", votesSQL, "ALTER TABLE votes OWNER TO "+owner, "GRANT SELECT ON votes TO "+role)
	const add = `ALTER PUBLICATION "capture_votes" ADD TABLE "public"."votes"`
	for _, name := range []string{owner, role} {
		user := connectAs(t, url, name)
		_, _, err := ensure(t, user, "votes")
		wantProblem(t, err, add+"; -- as")
		_, err = SetupSQL(testContext(t), user, loadTable(t, user, "votes"), SetupOptions{Source: "logical"})
		wantProblem(t, err, add)
		printed, err := SetupSQL(testContext(t), user, loadTable(t, user, "votes"), SetupOptions{Source: "logical", Complete: true})
		if err != nil || !slices.Equal(printed, []string{add}) {
			t.Errorf("for %s it prints %q, %v", name, printed, err)
		}
	}
	run(t, conn, add)
	wantPublication(t, connectAs(t, url, role), "votes", "capture_votes")
}

// TestPartitionIsPublishedUnderAnotherName checks the setup of a partition after somebody has added the partitioned table to
// the partition's publication. The stream then has the partition's changes under the partitioned table's name. capture's
// role owns the publication but not the partition, so it may repair the options of the publication, but not its list of
// tables. The error of FindPublication must contain the statements that repair the list, and setup must print them.
func TestPartitionIsPublishedUnderAnotherName(t *testing.T) {
	t.Parallel()
	const role = "capture_test_partition"
	conn, url := database(t, "CREATE TABLE p (id int PRIMARY KEY, g int GENERATED ALWAYS AS (id + 1) STORED) PARTITION BY LIST (id)",
		"CREATE TABLE p1 PARTITION OF p DEFAULT", "DROP ROLE IF EXISTS "+role)
	t.Cleanup(func() { run(t, conn, "DROP OWNED BY "+role, "DROP ROLE "+role) })
	for _, table := range []string{"p", "p1"} {
		setup(t, conn, table, SetupOptions{Source: "logical", Role: role})
	}
	user := connectAs(t, url, role)
	run(t, conn, "ALTER PUBLICATION capture_p SET (publish_via_partition_root = false)") // the role owns the publication, so it may set the option back
	wantPublication(t, user, "p", "capture_p")

	run(t, conn, "DROP PUBLICATION capture_p", "CREATE TABLE p2 PARTITION OF p FOR VALUES IN (2) PARTITION BY LIST (id)")
	setup(t, conn, "p2", SetupOptions{Source: "logical", Role: role})
	const noRoot = "publish_via_partition_root = false"
	options := []string{"", "publish = 'insert'", noRoot, noRoot + ", publish = 'insert'"}
	if majorVersion(conn.PgConn().ParameterStatus("server_version")) >= 18 {
		options = append(options, noRoot+", publish_generated_columns = none")
	}
	steps := []struct{ table, change string }{{"p1", "ADD TABLE p"}, {"p1", "SET TABLE p"}, {"p2", "ADD TABLE p"}, {"p2", "SET TABLE p"}}
	if hasSchemaPublications(conn) {
		run(t, conn, "CREATE SCHEMA parts", "CREATE TABLE parts.q (id int PRIMARY KEY) PARTITION BY LIST (id)", "CREATE TABLE q1 PARTITION OF parts.q DEFAULT")
		setup(t, conn, "q1", SetupOptions{Source: "logical", Role: role})
		steps = append(steps, struct{ table, change string }{"q1", "SET TABLES IN SCHEMA parts"})
	}
	for _, step := range steps {
		own := "capture_" + step.table
		for _, options := range options {
			s, table, err := LoadServerAndTable(testContext(t), user, Name{Table: step.table})
			if err != nil {
				t.Fatal(err)
			}
			run(t, conn, "ALTER PUBLICATION "+own+" "+step.change)
			want := []string{`ALTER PUBLICATION "` + own + `" SET TABLE ` + table.Name().Quoted()}
			if options != "" {
				run(t, conn, "ALTER PUBLICATION "+own+" SET ("+options+")")
				want = append(want, `ALTER PUBLICATION "`+own+`" SET (`+publicationOptions(s.VersionNum)+")")
			}
			// With publish_via_partition_root = false, the changes of a partition are published under its own name, so
			// capture can use the publication. This does not apply to p2, which is partitioned itself.
			if strings.HasPrefix(options, noRoot) && !strings.Contains(options, "'insert'") && step.table != "p2" {
				wantPublication(t, user, step.table, own)
				wantPublication(t, user, step.table, own) // call it again, because the first call must not break the publication
				run(t, conn, want...)
				continue
			}
			_, _, err = FindPublication(testContext(t), user, &s, table)
			wantProblem(t, err, strings.Join(want, "; ")+"; -- as")
			printed, err := SetupSQL(testContext(t), user, table, SetupOptions{Source: "logical", Complete: true})
			if err != nil || !slices.Equal(printed, want) {
				t.Errorf("after %s and %q it prints %q, %v", step.change, options, printed, err)
			}
			run(t, conn, want...)
			wantPublication(t, user, step.table, own)
		}
	}
}

// TestSetupAfterTableWasRestored checks setup after the table was dropped and created again. capture's role owns the
// publication, and cannot read the table yet. With --role, setup lets the role read the table and adds the table to the
// publication. Without --role, the error names the command with --role.
func TestSetupAfterTableWasRestored(t *testing.T) {
	t.Parallel()
	const role = "capture_test_restored"
	conn, url := database(t, votesSQL, "DROP ROLE IF EXISTS "+role)
	t.Cleanup(func() { run(t, conn, "DROP OWNED BY "+role, "DROP ROLE "+role) })
	setup(t, conn, "votes", SetupOptions{Source: "logical", Role: role})
	run(t, conn, "DROP TABLE votes", votesSQL)
	_, err := SetupSQL(testContext(t), conn, loadTable(t, conn, "votes"), SetupOptions{Source: "logical"})
	wantProblem(t, err, "capture setup --role "+role+" --table public.votes; otherwise: DROP PUBLICATION")
	statements := setup(t, conn, "votes", SetupOptions{Source: "logical", Role: role})
	want := []string{`GRANT SELECT ON "public"."votes" TO "` + role + `"`, `ALTER PUBLICATION "capture_votes" SET TABLE "public"."votes"`}
	if len(statements) != 3 || !slices.Equal(statements[:2], want) {
		t.Errorf("ran %q", statements)
	}
	wantPublication(t, connectAs(t, url, role), "votes", "capture_votes")
}
