package postgres

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
)

// connectAs opens a session of another role.
func connectAs(t *testing.T, url, role string) *pgx.Conn {
	t.Helper()
	cfg, err := ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	cfg.User = role
	conn, err := Connect(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(testContext(t)) })
	return conn
}

// TestForeignObjectsAreNotAdopted checks what happens if another role creates a function and a publication with capture's names
// before capture does. capture does not use, change or drop them, and its errors name their owner.
func TestForeignObjectsAreNotAdopted(t *testing.T) {
	t.Parallel()
	conn, url := database(t, votesSQL, "DROP ROLE IF EXISTS capture_test_mallory", "CREATE ROLE capture_test_mallory LOGIN",
		"GRANT CREATE, USAGE ON SCHEMA public TO capture_test_mallory")
	run(t, conn, "GRANT CREATE ON DATABASE "+QuoteIdentifier(currentDatabase(t, url))+" TO capture_test_mallory")
	t.Cleanup(func() { run(t, conn, "DROP OWNED BY capture_test_mallory CASCADE", "DROP ROLE capture_test_mallory") })
	mallory := connectAs(t, url, "capture_test_mallory")
	table := loadTable(t, conn, "votes")
	run(t, mallory, table.createTriggerFunctionSQL()...)
	run(t, mallory, "CREATE PUBLICATION capture_votes", "COMMENT ON PUBLICATION capture_votes IS 'capture 1.0: the changes of table votes'")

	wantOwner := func(what string, err error) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), "capture_test_mallory") {
			t.Errorf("%s: %v, which does not name the owner", what, err)
		}
	}
	for _, source := range []string{"notify", "logical"} {
		statements, err := SetupSQL(testContext(t), conn, table, SetupOptions{Source: source})
		wantOwner("setup for "+source, err)
		if len(statements) > 0 {
			t.Errorf("setup for %s would run %q", source, statements)
		}
	}
	s, err := LoadServer(testContext(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	_, _, err = EnsurePublication(testContext(t), conn, &s, table)
	wantOwner("run by logical", err)
	wantOwner("run by notify", CheckTriggers(testContext(t), conn, table))
	found, err := LoadTeardown(testContext(t), conn, table.Name(), "")
	if err != nil || len(found.Statements) > 0 || len(found.Kept) != 2 || !strings.Contains(found.Kept[0]+found.Kept[1], "capture_test_mallory") {
		t.Errorf("teardown would run %q and keep %q, %v", found.Statements, found.Kept, err)
	}

	// Even if the table's owner has created triggers that call the other role's function, capture does not accept the
	// function as its own.
	for _, g := range table.wantedTriggers() {
		run(t, conn, table.createTriggerSQL(g)...)
	}
	wantOwner("run by notify with triggers", CheckTriggers(testContext(t), conn, table))
}

// TestChangedFunctionIsReplaced checks that setup replaces the trigger function if the function has another body, or runs
// with its owner's rights or with other settings. setup must also replace a trigger that does not fire for every change.
func TestChangedFunctionIsReplaced(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL)
	for _, change := range []string{
		"DO $do$BEGIN EXECUTE replace(pg_get_functiondef('capture_votes()'::regprocedure), 'DECLARE', '-- changed\nDECLARE');\nEND$do$",
		"ALTER FUNCTION capture_votes() SECURITY DEFINER",
		"ALTER FUNCTION capture_votes() SET search_path = public",
		"ALTER FUNCTION capture_votes() RESET ALL",
		"ALTER FUNCTION capture_votes() SET session_replication_role = replica",
		"DROP TRIGGER capture_update ON votes; CREATE TRIGGER capture_update AFTER UPDATE OF comment ON votes FOR EACH STATEMENT EXECUTE FUNCTION capture_votes()",
		"DROP TRIGGER capture_insert ON votes; CREATE TRIGGER capture_insert AFTER INSERT ON votes FOR EACH STATEMENT WHEN (false) EXECUTE FUNCTION capture_votes(); ALTER TABLE votes ENABLE ALWAYS TRIGGER capture_insert",
		"DROP TRIGGER capture_insert ON votes; CREATE TRIGGER capture_insert BEFORE INSERT ON votes FOR EACH STATEMENT EXECUTE FUNCTION capture_votes(); ALTER TABLE votes ENABLE ALWAYS TRIGGER capture_insert",
	} {
		setup(t, conn, "votes", SetupOptions{Source: "notify"})
		table := loadTable(t, conn, "votes")
		if err := CheckTriggers(testContext(t), conn, table); err != nil {
			t.Fatal(err)
		}
		for _, s := range strings.Split(change, "; ") {
			run(t, conn, s)
		}
		if err := CheckTriggers(testContext(t), conn, table); err == nil {
			t.Errorf("%s: the triggers pass for whole", change)
		}
	}
	setup(t, conn, "votes", SetupOptions{Source: "notify"})
	teardown(t, conn, "votes", "")
}

// TestSetupMakesRoleOwnPublication checks that the role owns the publication after setup --role, and can drop it. It does not
// matter who runs the setup. Setup grants the role no other right for this purpose.
func TestSetupMakesRoleOwnPublication(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"superuser", "database owner"} {
		t.Run(by, func(t *testing.T) {
			t.Parallel()
			suffix := strings.ReplaceAll(by, " ", "_")
			role, owner := "capture_test_withdraw_"+suffix, "capture_test_app_"+suffix
			conn, url := database(t, votesSQL, "DROP ROLE IF EXISTS "+role, "DROP ROLE IF EXISTS "+owner,
				"CREATE ROLE "+owner+" LOGIN CREATEROLE", "ALTER TABLE votes OWNER TO "+owner)
			name := QuoteIdentifier(currentDatabase(t, url))
			run(t, conn, "ALTER DATABASE "+name+" OWNER TO "+owner)
			user := conn
			if by != "superuser" {
				user = connectAs(t, url, owner)
				run(t, conn, "CREATE ROLE "+role+" LOGIN REPLICATION")                   // an administrator does this
				if majorVersion(conn.PgConn().ParameterStatus("server_version")) >= 16 { // since version 16, a user with CREATEROLE gets this grant for each role that the user creates
					run(t, conn, "GRANT "+role+" TO "+owner+" WITH ADMIN TRUE, INHERIT FALSE, SET FALSE")
				}
			}
			t.Cleanup(func() {
				run(t, conn, "ALTER DATABASE "+name+" OWNER TO CURRENT_USER", "DROP OWNED BY "+owner+" CASCADE", "DROP ROLE IF EXISTS "+role, "DROP ROLE "+owner)
			})
			setup(t, user, "votes", SetupOptions{Source: "logical", Role: role})
			var pubOwner string
			var creates, member bool
			err := conn.QueryRow(testContext(t), `SELECT pg_get_userbyid(pubowner), has_database_privilege($1, current_database(), 'CREATE'),
				pg_has_role($2, $1, 'USAGE') FROM pg_publication`, role, owner).Scan(&pubOwner, &creates, &member)
			if err != nil || pubOwner != role || creates || member && by == "superuser" {
				t.Errorf("the publication belongs to %s; the role may create in the database: %t; the table's owner is a member: %t; %v", pubOwner, creates, member, err)
			}
			least := connectAs(t, url, role)
			wantPublication(t, least, "votes", "capture_votes")
			run(t, conn, "ALTER PUBLICATION capture_votes SET (publish = 'delete')") // the role may repair the publication, although it does not own the table
			if d, f := diagnose(t, url, role, LocalResources{}); d.Source != "logical" || f["publication"].Level != OK || !strings.Contains(f["publication"].Found, "repair") {
				t.Errorf("doctor recommends %s; %+v", d.Source, f["publication"])
			}
			wantPublication(t, least, "votes", "capture_votes")
			run(t, conn, "ALTER TABLE public.votes DROP CONSTRAINT votes_pkey")
			_, refusal := LoadTable(testContext(t), least, Name{Table: "votes"})
			wantProblem(t, WithdrawPublication(testContext(t), least, Name{Table: "votes"}, refusal), "has no primary key")
			run(t, conn, "INSERT INTO votes DEFAULT VALUES", "UPDATE votes SET comment = 'works'", "ALTER TABLE votes ADD PRIMARY KEY (vote_id)")
			setup(t, user, "votes", SetupOptions{Source: "logical", Role: role})
			teardown(t, user, "votes", role)
		})
	}
}

// TestWithdrawalNeedsOwnership checks what happens if capture's role does not own the publication: capture cannot drop the
// publication, and returns the statement that drops it.
func TestWithdrawalNeedsOwnership(t *testing.T) {
	t.Parallel()
	conn, url := database(t, votesSQL, "DROP ROLE IF EXISTS capture_test_outsider", "CREATE ROLE capture_test_outsider LOGIN REPLICATION",
		"GRANT SELECT ON votes TO capture_test_outsider")
	t.Cleanup(func() { run(t, conn, "DROP OWNED BY capture_test_outsider", "DROP ROLE capture_test_outsider") })
	setup(t, conn, "votes", SetupOptions{Source: "logical"})
	reader := connectAs(t, url, "capture_test_outsider")
	run(t, conn, "ALTER TABLE votes DROP CONSTRAINT votes_pkey", "REVOKE SELECT ON votes FROM capture_test_outsider")
	_, refusal := LoadTable(testContext(t), reader, Name{Table: "votes"})
	wantProblem(t, WithdrawPublication(testContext(t), reader, Name{Table: "votes"}, refusal), `DROP PUBLICATION IF EXISTS "capture_votes"`)

	// With REPLICA IDENTITY FULL, writes succeed, so capture need not ask anybody to drop the publication.
	run(t, conn, "ALTER TABLE votes REPLICA IDENTITY FULL")
	_, refusal = LoadTable(testContext(t), reader, Name{Table: "votes"})
	if err := WithdrawPublication(testContext(t), reader, Name{Table: "votes"}, refusal); strings.Contains(err.Error(), "DROP PUBLICATION") {
		t.Error(err)
	}
}

// TestAdviceWithoutSuperuser checks the doctor's advice about a publication that capture's role may not change. If the
// publication lacks the table, the table's owner may not add it either. Nobody is a superuser, as on a managed service, so the
// test runs each statement as the role that its comment names. Afterwards, capture follows the table by logical replication.
func TestAdviceWithoutSuperuser(t *testing.T) {
	t.Parallel()
	const publish = "CREATE PUBLICATION capture_votes FOR TABLE votes WITH (publish_via_partition_root = true)"
	for _, c := range []struct {
		name, owner string // owner is the role that owns the publication
		create      string
		again       string // statement that breaks the publication again; doctor must then give advice again
		want        string // name of the publication that is followed in the end
	}{
		{"complete", "migrator", publish, "", "capture_votes"},
		{"complete, of another follower", "admin", publish + "; GRANT CREATE ON DATABASE postgres TO follower", "", "capture_votes"},
		{"complete, of the table's owner", "app", publish, "", "capture_votes"},
		{"without the table", "admin", "CREATE PUBLICATION capture_votes", "", "capture_votes_2"},
		{"without the table, of a stranger", "migrator", "CREATE PUBLICATION capture_votes", "", "capture_votes_2"},
		{"without the table, again", "migrator", "CREATE PUBLICATION capture_votes", "ALTER PUBLICATION capture_votes_2 DROP TABLE votes", "capture_votes_3"},
		{"without deletes", "admin", publish + "; ALTER PUBLICATION capture_votes SET (publish = 'insert')", "", "capture_votes"},
		{"none", "", "SELECT", "", "capture_votes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := pgserver.ForTest(t, pgserver.Options{}).URL("postgres")
			conn := connectTo(t, url)
			run(t, conn, "CREATE ROLE azure_pg_admin", "CREATE ROLE admin LOGIN CREATEROLE REPLICATION", "GRANT azure_pg_admin TO admin",
				"CREATE ROLE landlord LOGIN", "ALTER DATABASE postgres OWNER TO landlord", "CREATE ROLE app LOGIN", votesSQL, "ALTER TABLE votes OWNER TO app",
				"CREATE ROLE migrator LOGIN", "GRANT SELECT ON votes TO admin")
			run(t, connectAs(t, url, "admin"), "CREATE ROLE follower LOGIN")
			run(t, conn, "ALTER ROLE follower REPLICATION", "GRANT SELECT ON votes TO follower", "GRANT CREATE ON DATABASE postgres TO migrator, admin")
			for _, statement := range strings.Split(c.create, "; ") {
				run(t, conn, statement)
			}
			if c.owner != "" {
				run(t, conn, "ALTER PUBLICATION capture_votes OWNER TO "+c.owner)
			}
			follow := func(advice Finding) {
				t.Helper()
				if c.owner != "" && !strings.Contains(advice.Found+advice.Reason, "belongs to "+c.owner) {
					t.Errorf("the owner is missing in %+v", advice)
				}
				hint := advice.Hint
				if _, other, ok := strings.Cut(hint, "\nor, "); ok {
					_, hint, _ = strings.Cut(other, ":\n")
				}
				for line := range strings.Lines(hint) {
					statements, who, ok := strings.Cut(line, "; -- as ")
					role := strings.TrimSpace(strings.TrimSuffix(strings.Fields(who + " none")[0], ","))
					if role == "an" { // administrator
						role = "admin"
					}
					if !ok || role == "a" {
						t.Fatalf("who runs %q?", line)
					}
					user := connectAs(t, url, role)
					for _, statement := range strings.Split(statements, "; ") {
						if _, err := user.Exec(testContext(t), statement); err != nil {
							t.Errorf("%s, run by %s: %v", statement, role, err)
						}
					}
				}
			}
			_, f := diagnose(t, url, "follower", LocalResources{})
			follow(f["publication"])
			if c.again != "" {
				run(t, conn, c.again)
			}
			d, f := diagnose(t, url, "follower", LocalResources{})
			if f["publication"].Level != OK { // the first advice was about the table, the second one is about the owner
				follow(f["publication"])
				d, f = diagnose(t, url, "follower", LocalResources{})
			}
			if d.Source != "logical" || f["publication"].Level != OK || !strings.HasPrefix(f["publication"].Found, c.want+" has all changes") {
				t.Errorf("after that, %s: %+v", d.Source, f["publication"])
			}
			var creates, member bool
			err := conn.QueryRow(testContext(t), `SELECT has_database_privilege('follower', current_database(), 'CREATE'), EXISTS (
				SELECT FROM pg_auth_members WHERE roleid = 'follower'::regrole AND member <> 'admin'::regrole)`).Scan(&creates, &member)
			if err != nil || member || creates != strings.Contains(c.create, "TO follower") {
				t.Errorf("the follower may create objects in the database: %t; somebody is a member of it: %t; %v", creates, member, err)
			}
			if _, err := SetupSQL(testContext(t), connectAs(t, url, "app"), loadTable(t, conn, "votes"), SetupOptions{Source: "logical"}); err != nil {
				t.Errorf("setup: %v", err)
			}
		})
	}
}
