package restore_test

import (
	"fmt"
	"strings"
	"testing"

	"capture/internal/restore"
)

// TestMissingRightsAreNamed checks that the errors of a restore name the rights that the user lacks. The test grants the
// named rights one after the other until the restore works.
func TestMissingRightsAreNamed(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(20)
	path := d.Export("votes")
	role := d.newRole()
	database := d.Query("SELECT current_database()")
	d.Exec("REVOKE TEMPORARY ON DATABASE " + database + " FROM PUBLIC")
	other := d.asRole(role)
	d.Exec("TRUNCATE votes; ALTER SEQUENCE votes_vote_id_seq RESTART")

	refused := func(o restore.Options, words ...string) {
		t.Helper()
		o.Path = path
		for _, o.DryRun = range []bool{true, false} {
			other.wantRefused(o, words...)
		}
	}
	grant := func(what string) {
		t.Helper()
		d.Exec("GRANT " + what + " TO " + role)
	}
	refused(restore.Options{}, "no right to read table public.votes", `GRANT SELECT ON "public"."votes" TO "`+role+`"`)
	grant("SELECT ON votes")
	refused(restore.Options{}, "lacks the rights", "hint: connect as the table's owner", `or GRANT INSERT, UPDATE ON "public"."votes" TO "`+role+`";`)
	grant("INSERT ON votes")
	refused(restore.Options{}, "to lock the table", `GRANT UPDATE ON "public"."votes" TO "`+role+`";`)
	d.Exec("INSERT INTO votes (vote_id) VALUES (100)")
	refused(restore.Options{OnConflict: restore.Overwrite, DeleteExtra: true}, `GRANT UPDATE, DELETE ON "public"."votes"`, "GRANT TEMPORARY ON DATABASE")
	d.Exec("TRUNCATE votes")
	grant("UPDATE ON votes")
	refused(restore.Options{}, "no right to set sequence public.votes_vote_id_seq", `GRANT SELECT, UPDATE ON SEQUENCE public.votes_vote_id_seq TO "`+role+`"`)
	grant("SELECT, UPDATE ON SEQUENCE votes_vote_id_seq")
	dry := other.restore(restore.Options{Path: path, DryRun: true})
	res := other.restore(restore.Options{Path: path})
	if fmt.Sprint(dry.Sequences, dry.Inserted) != fmt.Sprint(res.Sequences, res.Inserted) || fmt.Sprint(res.Sequences) != "[{public.votes_vote_id_seq 20}]" {
		t.Errorf("the dry run said %+v, the restore %+v", dry, res)
	}
	// A dry run without the right to create temporary tables finds the same conflict as a real run.
	refused(restore.Options{}, "already in table public.votes")
	grant("DELETE ON votes")
	grant("TEMPORARY ON DATABASE " + database)
	d.Exec("UPDATE votes SET comment = 'changed'; INSERT INTO votes (vote_id) VALUES (100)")
	if res := other.restore(restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true}); res.Overwritten.Rows != 20 || res.Deleted.Rows != 1 {
		t.Errorf("%+v", res)
	}
	d.wantEqual(path, "votes")

	// If rows exchange unique values, the restore deletes and inserts them, so the user needs DELETE.
	d.Exec("CREATE TABLE t (id int PRIMARY KEY, pos int UNIQUE); INSERT INTO t VALUES (1, 1), (2, 2)")
	path = d.Export("t")
	d.Exec("UPDATE t SET pos = -pos; UPDATE t SET pos = 3 + pos")
	grant("SELECT, INSERT, UPDATE ON t")
	refused(restore.Options{OnConflict: restore.Overwrite}, "no right to delete", `GRANT DELETE ON "public"."t"`)
	grant("DELETE ON t")
	other.restore(restore.Options{Path: path, OnConflict: restore.Overwrite})
	d.wantEqual(path, "t")

	// A restore that creates the table needs a privilege for the schema.
	d.Exec("DROP TABLE t; REVOKE CREATE ON SCHEMA public FROM PUBLIC")
	refused(restore.Options{Create: true}, "permission denied for schema public",
		"hint: connect as the role that shall own the table, such as the application's (docs/recovery.md), or GRANT CREATE ON SCHEMA public TO "+role+";")
	grant("CREATE ON SCHEMA public")
	created := other.restore(restore.Options{Path: path, Create: true})
	if owner := d.Query("SELECT tableowner FROM pg_tables WHERE tablename = 't'"); owner != role || len(created.Notes) != 1 {
		t.Errorf("the table belongs to %s; the notes are %q", owner, created.Notes)
	}
}

// TestProtectedRowsThatExchangeValues checks restores of rows that exchange unique values while other rows depend on them.
// The restore is refused if the unique column cannot be NULL and the user may not switch foreign keys off.
func TestProtectedRowsThatExchangeValues(t *testing.T) {
	if testing.Short() {
		t.Skip("restores many tables")
	}
	t.Parallel()
	d := newDB(t)
	role := d.newRole()
	d.Exec("GRANT ALL ON SCHEMA public TO " + role)
	owner := d.asRole(role)
	for _, action := range []string{"CASCADE", "SET NULL", "RESTRICT", "SET DEFAULT"} {
		for _, column := range []string{"pos int UNIQUE", "pos int NOT NULL UNIQUE", "pos int CHECK (pos IS NOT NULL) UNIQUE", "pos int UNIQUE DEFERRABLE"} {
			d.Exec(fmt.Sprintf("CREATE TABLE t (id int PRIMARY KEY, %s); CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t ON DELETE %s); INSERT INTO t SELECT i, i FROM generate_series(1, 10) i; INSERT INTO c SELECT i, i FROM generate_series(1, 10) i; ALTER TABLE t OWNER TO %s; ALTER TABLE c OWNER TO %[3]s",
				column, action, role))
			path := d.Export("t")
			d.Exec("UPDATE t SET pos = pos + 100; UPDATE t SET pos = 111 - pos")
			o := restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true}
			if strings.Contains(column, "NULL") {
				owner.wantRefused(o, `exchange values of constraint "t_pos_key", the first at line 2 (id 1)`, `foreign key "c_t_fkey" of table public.c`, "DEFERRABLE", "GRANT SET ON PARAMETER session_replication_role")
				d.restore(o)
			} else {
				owner.restore(o)
			}
			d.wantEqual(path, "t")
			if got := d.Query("SELECT count(*), count(t) FROM c"); got != "10|10" {
				t.Errorf("%s, %s: the other table has %s", action, column, got)
			}
			d.Exec("DROP TABLE c, t")
		}
	}
}

// TestProtectedRowsWithOtherIdentity restores rows on which other rows depend, and whose identity column has other values in
// the file. Such a row can only be deleted and inserted again, so the restore is refused if the user may not switch foreign
// keys off.
func TestProtectedRowsWithOtherIdentity(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	role := d.newRole()
	d.Exec("GRANT ALL ON SCHEMA public TO " + role)
	d.Exec(`CREATE TABLE t (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY); CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE);
		INSERT INTO t VALUES (1), (2), (3); INSERT INTO c VALUES (1), (2), (3); ALTER TABLE t OWNER TO ` + role + "; ALTER TABLE c OWNER TO " + role)
	path := d.Export("t")
	d.Exec("UPDATE t SET n = DEFAULT")
	o := restore.Options{Path: path, OnConflict: restore.Overwrite}
	const alter = `ALTER TABLE "public"."t" ALTER COLUMN "n" SET GENERATED BY DEFAULT;`
	owner := d.asRole(role)
	owner.wantRefused(o, `column "n" is GENERATED ALWAYS AS IDENTITY and differs`, `rows of table public.c refer to such rows (foreign key "c_t_fkey")`,
		"hint: restore as a superuser", "; or first "+alter)
	owner.Exec(alter) // as the hint says
	owner.restore(o)
	d.wantEqual(path, "t")
	d.Exec("ALTER TABLE t ALTER COLUMN n SET GENERATED ALWAYS; UPDATE t SET n = DEFAULT")
	// No unique constraint is in the way, so the result must not name one.
	notes := strings.Join(d.restore(o).Notes, "\n")
	if !strings.Contains(notes, "foreign keys did not act") || strings.Contains(notes, "unique constraint") {
		t.Errorf("the notes are %q", notes)
	}
	d.wantEqual(path, "t")
	if n := d.Query("SELECT count(*) FROM c"); n != "3" {
		t.Errorf("the other table has %s rows", n)
	}
}

// rowsToMove lists definitions of column n of a table t(id, n). Each definition has a change of the table after which a
// restore must delete rows and insert them again.
var rowsToMove = map[string]struct{ column, change string }{
	"identity": {"int GENERATED BY DEFAULT AS IDENTITY", "ALTER TABLE t ALTER COLUMN n SET GENERATED ALWAYS, ALTER COLUMN n RESTART WITH 10; UPDATE t SET n = DEFAULT"},
	"exchange": {"int NOT NULL UNIQUE", "UPDATE t SET n = -n; UPDATE t SET n = 4 + n"},
}

// TestOverwriteWithoutDeleteRight checks the error for rows that can only be deleted and inserted again, if the user may not
// delete rows.
func TestOverwriteWithoutDeleteRight(t *testing.T) {
	t.Parallel()
	for name, c := range rowsToMove {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			role := d.newRole()
			d.Exec("CREATE TABLE t (id int PRIMARY KEY, n " + c.column + "); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
			path := d.Export("t")
			d.Exec(c.change + "; GRANT SELECT, INSERT, UPDATE ON t TO " + role + "; GRANT SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO " + role)
			o := restore.Options{Path: path, OnConflict: restore.Overwrite}
			other := d.asRole(role)
			for _, o.DryRun = range []bool{true, false} {
				other.wantRefused(o, "no right to delete rows of table public.t", "deleted and inserted again", `GRANT DELETE ON "public"."t" TO "`+role+`";`)
			}
			d.Exec("GRANT DELETE ON t TO " + role)
			other.restore(o)
			d.wantEqual(path, "t")
		})
	}
}

// TestUnreadableReferringTable checks the error for rows that can only be deleted and inserted again, if the user may not read
// a table whose foreign key refers to them. The error must not claim that rows of that table, which is empty, refer to them.
func TestUnreadableReferringTable(t *testing.T) {
	t.Parallel()
	for name, c := range rowsToMove {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			role := d.newRole()
			d.Exec("CREATE TABLE t (id int PRIMARY KEY, n " + c.column + "); CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
			path := d.Export("t")
			d.Exec(c.change + "; GRANT SELECT, INSERT, UPDATE, DELETE ON t TO " + role + "; GRANT SELECT, UPDATE ON ALL SEQUENCES IN SCHEMA public TO " + role)
			o := restore.Options{Path: path, OnConflict: restore.Overwrite}
			other := d.asRole(role)
			other.wantRefused(o, `no right to read all rows of table public.c, which may refer to rows of table public.t (foreign key "c_t_fkey")`, "GRANT SELECT ON public.c TO "+role+";")
			d.Exec("GRANT SELECT ON c TO " + role)
			other.restore(o)
			d.wantEqual(path, "t")
		})
	}
}

// TestUniqueValueOfARowThatStays checks the error for a row of the file if another row of the table has the same unique value,
// and the file lacks this other row. The restore succeeds only if it may delete the other row.
func TestUniqueValueOfARowThatStays(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec("CREATE TABLE t (id int PRIMARY KEY, pos int NOT NULL UNIQUE); CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3); INSERT INTO c VALUES (1), (2), (3)")
	path := d.Export("t")
	d.Exec("UPDATE t SET pos = 30 WHERE id = 3; INSERT INTO t VALUES (9, 3)")
	o := restore.Options{Path: path, OnConflict: restore.Overwrite}
	d.wantRefused(o, "line 4 (id 3)", `another row has the same value already (unique constraint "t_pos_key")`)
	o.OnConflict = restore.Skip
	d.Exec("DELETE FROM t WHERE id = 3")
	d.wantRefused(o, "line 4 (id 3)", `another row has the same value already (unique constraint "t_pos_key")`)
	o.OnConflict, o.DeleteExtra = restore.Overwrite, true
	d.restore(o)
	d.wantEqual(path, "t")
}

// TestForeignKeysThatAreInTheWay checks the errors of restores that would violate a foreign key.
func TestForeignKeysThatAreInTheWay(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec("CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t, v text); CREATE TABLE c (t int REFERENCES t); INSERT INTO t VALUES (1, NULL, 'a'), (2, 1, 'b')")
	path := d.Export("t")
	d.Exec("INSERT INTO t VALUES (3, 1, 'c'); INSERT INTO c VALUES (3)")
	o := restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true}
	d.wantRefused(o, "rows of table public.c refer to rows that would go from table public.t", `foreign key "c_t_fkey"`, "--delete-extra")
	o.DeleteExtra = false
	d.restore(o)

	// A restore also fails with this error if its rows exchange unique values. With "id % 3 + 1", another row refers to each of
	// the exchanged rows, so only a merge without triggers could exchange the values.
	for _, up := range []string{"1", "id % 3 + 1"} {
		for _, deferrable := range []string{"", "DEFERRABLE"} {
			d.Exec("DROP TABLE IF EXISTS cu, u; CREATE TABLE u (id int PRIMARY KEY, pos int NOT NULL UNIQUE, up int REFERENCES u ON DELETE CASCADE); INSERT INTO u VALUES (1, 1, NULL), (2, 2, 1), (3, 3, 1)")
			path = d.Export("u")
			d.Exec("CREATE TABLE cu (u int REFERENCES u " + deferrable + "); UPDATE u SET pos = -pos, up = " + up + "; UPDATE u SET pos = 4 + pos; INSERT INTO u VALUES (9, 9); INSERT INTO cu VALUES (9)")
			d.wantRefused(restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true}, "rows of table public.cu refer to rows that would go from table public.u")
			d.Exec("DELETE FROM cu")
			d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true})
			d.wantEqual(path, "u")
		}
	}

	var rows []string
	for i := range 3000 {
		rows = append(rows, fmt.Sprintf(`{"id":%d,"up":%d,"v":"%s"}`, i+10, (i+1)%3000+10, strings.Repeat("x", 1000)))
	}
	rows[2000] = `{"id":2010,"up":99999,"v":"SECRET"}`
	d.Exec("TRUNCATE c, t")
	d.wantRefused(restore.Options{Path: d.WriteFile("[\n" + strings.Join(rows, ",\n") + "\n]"), Table: d.Name("t")}, "line 2002 (id 2010)", `foreign key "t_up_fkey"`)
}

// TestExchangeThatNeedsDisableTriggers checks that the errors about rows that exchange unique values name --disable-triggers if
// even a superuser needs it, and that the restore succeeds with --disable-triggers.
func TestExchangeThatNeedsDisableTriggers(t *testing.T) {
	t.Parallel()
	const tables = "CREATE TABLE t (id int PRIMARY KEY, pos int NOT NULL UNIQUE); INSERT INTO t VALUES (1, 1), (2, 2); CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE); INSERT INTO c VALUES (1), (2);"
	const rule = "CREATE RULE r AS ON INSERT TO t DO ALSO NOTHING;"
	for name, c := range map[string]struct {
		sql     string
		version int
		reason  string
	}{
		"rule":                         {tables + rule, 0, "must not be deleted"},
		"rule without references":      {tables + rule + "DROP TABLE c", 0, "rules"},
		"foreign key with a period":    {tables + "CREATE TABLE p (id int, at int4range, PRIMARY KEY (id, at WITHOUT OVERLAPS)); ALTER TABLE t ADD p int, ADD at int4range, ADD FOREIGN KEY (p, PERIOD at) REFERENCES p (id, PERIOD at)", 18, "must not be deleted"},
		"identity column, with period": {strings.Replace(tables, "NOT NULL UNIQUE", "GENERATED ALWAYS AS IDENTITY", 1) + "CREATE TABLE p (id int, at int4range, PRIMARY KEY (id, at WITHOUT OVERLAPS)); ALTER TABLE t ADD p int, ADD at int4range, ADD FOREIGN KEY (p, PERIOD at) REFERENCES p (id, PERIOD at)", 18, "IDENTITY"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			if d.version() < c.version {
				t.Skipf("needs PostgreSQL %d", c.version)
			}
			if c.version > 0 {
				d.Exec("CREATE EXTENSION IF NOT EXISTS btree_gist")
			}
			d.Exec(strings.Replace(c.sql, "INSERT INTO t VALUES", "INSERT INTO t OVERRIDING SYSTEM VALUE VALUES", 1))
			path := d.Export("t")
			if c.reason == "IDENTITY" {
				d.Exec("UPDATE t SET pos = DEFAULT; UPDATE t SET pos = DEFAULT")
			} else {
				d.Exec(exchange)
			}
			o := restore.Options{Path: path, OnConflict: restore.Overwrite}
			err := d.wantRefused(o, c.reason, "--disable-triggers, as a superuser")
			if strings.Contains(err.Error(), "restore as a superuser") {
				t.Error(err)
			}
			o.DisableTriggers = true
			d.restore(o)
			d.wantEqual(path, "t")
		})
	}
}
