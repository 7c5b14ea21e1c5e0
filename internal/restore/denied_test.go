package restore_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"capture/internal/restore"
)

// deniedCases lists restores that fail because a role lacks a privilege. $user is the role that restores, $owner another role.
// The restored table is t.
var deniedCases = map[string]struct {
	tables string          // creates and fills t and other tables
	change string          // changes t after the file was written, and takes the privilege away
	o      restore.Options // options other than Path
	want   []string        // statements in the errors of repeated restores; the test runs each statement before the next restore
}{
	"type of a new table": {
		"CREATE TYPE e AS ENUM ('a'); CREATE TABLE t (id int PRIMARY KEY, v e); INSERT INTO t VALUES (1, 'a')",
		"DROP TABLE t; REVOKE USAGE ON TYPE e FROM PUBLIC; GRANT ALL ON SCHEMA public TO $user",
		restore.Options{Create: true}, []string{"GRANT USAGE ON TYPE public.e TO $user;"},
	},
	"schema of a new table": {
		`CREATE SCHEMA "New one"; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); ALTER TABLE t SET SCHEMA "New one"`,
		`DROP TABLE "New one".t`,
		restore.Options{Create: true}, []string{`GRANT USAGE, CREATE ON SCHEMA "New one" TO $user;`},
	},
	"use of a new table's schema": {
		"CREATE SCHEMA s; CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1); ALTER TABLE t SET SCHEMA s",
		"DROP TABLE s.t; GRANT CREATE ON SCHEMA s TO $user",
		restore.Options{Create: true}, []string{"GRANT USAGE ON SCHEMA s TO $user;"},
	},
	"schema of a new table's type": {
		"CREATE SCHEMA s; CREATE TYPE s.e AS ENUM ('a'); CREATE TABLE t (id int PRIMARY KEY, v s.e); INSERT INTO t VALUES (1, 'a')",
		"DROP TABLE t; GRANT ALL ON SCHEMA public TO $user",
		restore.Options{Create: true}, []string{"GRANT USAGE ON SCHEMA s TO $user;"},
	},
	"temporary view for a generated column": {
		"CREATE TABLE t (id int PRIMARY KEY, n int GENERATED ALWAYS AS (id + 1) STORED); INSERT INTO t VALUES (1)",
		"DROP TABLE t; REVOKE TEMPORARY ON DATABASE $database FROM PUBLIC; GRANT ALL ON SCHEMA public TO $user",
		restore.Options{Create: true}, []string{`GRANT TEMPORARY ON DATABASE "$database" TO $user;`},
	},
	"type of the temporary table": {
		"CREATE TYPE e AS ENUM ('a'); CREATE TABLE t (id int PRIMARY KEY, v e[]); INSERT INTO t VALUES (1, '{a}')",
		"UPDATE t SET v = NULL; REVOKE USAGE ON TYPE e FROM PUBLIC",
		restore.Options{OnConflict: restore.Overwrite}, []string{"GRANT USAGE ON TYPE public.e TO $user;"},
	},
	"check": {
		"CREATE FUNCTION good(int, text) RETURNS bool LANGUAGE sql AS 'SELECT true'; CREATE TABLE t (id int PRIMARY KEY CHECK (good(id, ''))); INSERT INTO t VALUES (1)",
		"TRUNCATE t; REVOKE EXECUTE ON FUNCTION good FROM PUBLIC",
		restore.Options{}, []string{"GRANT EXECUTE ON ROUTINE public.good(integer,text) TO $user;"},
	},
	"referenced table": { // the owner of the table lacks the privilege, not the user
		"CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1); CREATE TABLE t (id int PRIMARY KEY REFERENCES p); INSERT INTO t VALUES (1)",
		"TRUNCATE t; ALTER TABLE p OWNER TO $owner; REVOKE ALL ON p FROM $owner; GRANT UPDATE, INSERT, DELETE ON p TO $owner; GRANT USAGE ON SCHEMA public TO $owner",
		restore.Options{}, []string{"GRANT SELECT ON TABLE public.p TO $owner;"},
	},
	"referring table": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`CREATE TABLE "C" (t int REFERENCES t ON DELETE CASCADE); INSERT INTO t VALUES (2); ALTER TABLE "C" OWNER TO $owner; REVOKE DELETE ON "C" FROM $owner; GRANT USAGE ON SCHEMA public TO $owner`,
		restore.Options{OnConflict: restore.Overwrite, DeleteExtra: true}, []string{`GRANT DELETE ON TABLE public."C" TO $owner;`},
	},
	"rule": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		"DELETE FROM t; INSERT INTO t VALUES (2); CREATE TABLE audit (id int); CREATE RULE r AS ON INSERT TO t DO ALSO INSERT INTO audit VALUES (new.id); ALTER TABLE t OWNER TO $owner; GRANT SELECT, UPDATE, DELETE ON audit TO $owner",
		restore.Options{OnConflict: restore.Overwrite, DeleteExtra: true}, []string{"hint: GRANT INSERT ON TABLE public.audit TO $owner;"},
	},
	"trigger": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE SCHEMA s; CREATE TABLE s.audit (id int); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO s.audit VALUES (new.id); RETURN new; END$$;
		CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()`,
		restore.Options{}, []string{"GRANT USAGE ON SCHEMA s TO $user; or leave the triggers out with --disable-triggers",
			"GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE s.audit TO $user; (only those that it needs)"},
	},
	"trigger's sequence": {
		"CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE SEQUENCE "N"; CREATE FUNCTION "Log"() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM nextval('"N"'); RETURN new; END$$;
		CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION "Log"()`,
		restore.Options{}, []string{`GRANT USAGE, SELECT, UPDATE ON SEQUENCE public."N" TO $user;`},
	},
	"SECURITY DEFINER": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE TABLE audit (id int); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN INSERT INTO audit VALUES (new.id); RETURN new; END$$;
		CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note(); ALTER FUNCTION note OWNER TO $owner; GRANT SELECT, UPDATE, DELETE ON audit TO $owner`,
		restore.Options{}, []string{"GRANT INSERT ON TABLE public.audit TO $owner;"},
	},
	"SQL function with SECURITY DEFINER": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE TABLE audit (id int); CREATE FUNCTION put(int) RETURNS void LANGUAGE sql SECURITY DEFINER AS 'INSERT INTO audit VALUES ($1)';
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM put(new.id); RETURN new; END$$; ALTER FUNCTION put OWNER TO $owner;
		CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note(); GRANT SELECT, UPDATE, DELETE ON audit TO $owner`,
		restore.Options{}, []string{"hint: GRANT INSERT ON TABLE public.audit TO $owner;"},
	},
	"schema of a referenced table": {
		"CREATE SCHEMA s; CREATE TABLE s.p (id int PRIMARY KEY); INSERT INTO s.p VALUES (1); CREATE TABLE t (id int PRIMARY KEY REFERENCES s.p); INSERT INTO t VALUES (1)",
		"TRUNCATE t; ALTER TABLE s.p OWNER TO $owner",
		restore.Options{}, []string{"hint: GRANT USAGE ON SCHEMA s TO $owner;"},
	},
	"referenced table with quotes": {
		`CREATE TABLE "P""x" (id int PRIMARY KEY); INSERT INTO "P""x" VALUES (1); CREATE TABLE t (id int PRIMARY KEY REFERENCES "P""x"); INSERT INTO t VALUES (1)`,
		`TRUNCATE t; ALTER TABLE "P""x" OWNER TO $owner; REVOKE UPDATE ON "P""x" FROM $owner; GRANT USAGE ON SCHEMA public TO $owner`,
		restore.Options{}, []string{`hint: GRANT UPDATE ON TABLE public."P""x" TO $owner;`},
	},
	"table of a view": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE TABLE audit (id int); CREATE VIEW seen AS SELECT * FROM audit; ALTER VIEW seen OWNER TO $owner; GRANT ALL ON seen TO $user; GRANT SELECT, UPDATE, DELETE ON audit TO $owner;
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO seen VALUES (new.id); RETURN new; END$$; CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()`,
		restore.Options{}, []string{"hint: GRANT INSERT ON TABLE public.audit TO $owner;"},
	},
	"row-level security behind a view": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE TABLE audit (id int); ALTER TABLE audit ENABLE ROW LEVEL SECURITY; CREATE VIEW seen AS SELECT * FROM audit; ALTER VIEW seen OWNER TO $owner; GRANT ALL ON seen TO $user; GRANT ALL ON audit TO $owner;
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO seen VALUES (new.id); RETURN new; END$$; CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()`,
		restore.Options{}, []string{"hint: ALTER ROLE $owner BYPASSRLS;"},
	},
	"rule of another table": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE TABLE audit (id int); CREATE TABLE audit2 (id int); CREATE RULE r AS ON INSERT TO audit DO ALSO INSERT INTO audit2 VALUES (new.id); ALTER TABLE audit OWNER TO $owner; GRANT ALL ON audit TO $user;
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO audit VALUES (new.id); RETURN new; END$$; CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()`,
		restore.Options{}, []string{"hint: GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.audit2 TO $owner; (only those that it needs)"},
	},
	"trigger of a table with a rule": { // an INSERT does not run the rule, so the user needs the privilege, not the owner of the rule
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE TABLE audit (id int); CREATE RULE r AS ON DELETE TO t DO ALSO NOTIFY gone; ALTER TABLE t OWNER TO $owner;
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO audit VALUES (new.id); RETURN new; END$$; CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()`,
		restore.Options{}, []string{"hint: GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.audit TO $user; (only those that it needs)"},
	},
	"functions of the same name": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE SCHEMA b; CREATE TABLE audit (id int);
		CREATE FUNCTION b.note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN RETURN new; END$$; CREATE FUNCTION public.note(int) RETURNS int LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN RETURN 1; END$$;
		ALTER FUNCTION b.note() OWNER TO $owner; ALTER FUNCTION public.note(int) OWNER TO $owner;
		CREATE FUNCTION public.note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO audit VALUES (new.id); RETURN new; END$$; CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION public.note()`,
		restore.Options{}, []string{"hint: GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE public.audit TO $user; (only those that it needs)"},
	},
	"tables of the same name": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE SCHEMA a1; CREATE SCHEMA a2; CREATE SCHEMA z; CREATE TABLE a1.audit (); CREATE TABLE a2.audit (); CREATE TABLE audit (); CREATE TABLE z.audit (id int); GRANT USAGE ON SCHEMA z TO $user;
		CREATE SCHEMA audit; CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO z.audit VALUES (new.id); RETURN new; END$$; CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()`,
		restore.Options{}, []string{"hint: GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE z.audit TO $user; (only those that it needs)"},
	},
	"TRUNCATE": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE TABLE audit (id int); GRANT SELECT, INSERT, UPDATE, DELETE ON audit TO $user;
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN TRUNCATE audit; RETURN new; END$$; CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()`,
		restore.Options{}, []string{"hint: GRANT TRUNCATE ON TABLE public.audit TO $user;"},
	},
	"CREATE": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE SCHEMA parts; GRANT USAGE ON SCHEMA parts TO $user;
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN CREATE TABLE IF NOT EXISTS parts.p (); RETURN new; END$$; CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()`,
		restore.Options{}, []string{"hint: GRANT CREATE ON SCHEMA parts TO $user;"},
	},
	"procedure": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE PROCEDURE p(text) LANGUAGE sql AS ''; REVOKE ALL ON PROCEDURE p FROM PUBLIC;
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN CALL p(''); RETURN new; END$$; CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()`,
		restore.Options{}, []string{"hint: GRANT EXECUTE ON ROUTINE public.p(text) TO $user;"},
	},
	"row-level security": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE TABLE audit (id int); ALTER TABLE audit ENABLE ROW LEVEL SECURITY; GRANT ALL ON audit TO $user;
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO audit VALUES (new.id); RETURN new; END$$;
		CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note()`,
		restore.Options{}, []string{"ALTER ROLE $user BYPASSRLS;"},
	},
	"row-level security of a SECURITY DEFINER": {
		"CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE TABLE audit (id int); ALTER TABLE audit ENABLE ROW LEVEL SECURITY; GRANT ALL ON audit TO $user, $owner;
		CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$BEGIN INSERT INTO audit VALUES (new.id); RETURN new; END$$;
		CREATE TRIGGER writes BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION note(); ALTER FUNCTION note OWNER TO $owner`,
		restore.Options{}, []string{"ALTER ROLE $owner BYPASSRLS;"},
	},
	"sequence": {
		"CREATE SCHEMA s; CREATE SEQUENCE s.n; CREATE TABLE t (id int PRIMARY KEY DEFAULT nextval('s.n')); INSERT INTO t VALUES (5)",
		"DELETE FROM t; GRANT ALL ON SEQUENCE s.n TO $user",
		restore.Options{}, []string{"GRANT USAGE ON SCHEMA s TO $user;"},
	},
	"sequence and its schema": {
		"CREATE SCHEMA s; CREATE SEQUENCE s.n; CREATE TABLE t (id int PRIMARY KEY DEFAULT nextval('s.n')); INSERT INTO t VALUES (5)",
		"DELETE FROM t",
		restore.Options{}, []string{"GRANT USAGE ON SCHEMA s TO $user; GRANT SELECT, UPDATE ON SEQUENCE s.n TO $user;"},
	},
	"trigger of a partition": {
		"CREATE TABLE t (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE t1 PARTITION OF t DEFAULT; INSERT INTO t VALUES (1)",
		`DELETE FROM t; CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN new; END$$;
		CREATE TRIGGER writes BEFORE INSERT ON t1 FOR EACH ROW EXECUTE FUNCTION note(); ALTER TABLE t OWNER TO $user`,
		restore.Options{DisableTriggers: true}, []string{"GRANT SET ON PARAMETER session_replication_role TO $user;"},
	},
	"referenced table without triggers": {
		"CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1), (2); CREATE TABLE t (id int PRIMARY KEY, n int NOT NULL UNIQUE, p int REFERENCES p); CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE);" +
			"INSERT INTO t VALUES (1, 1, 1), (2, 2, 2); INSERT INTO c VALUES (1), (2)",
		"UPDATE t SET n = -n; UPDATE t SET n = 3 + n; GRANT SELECT ON c TO $user; GRANT SET ON PARAMETER session_replication_role TO $user",
		restore.Options{OnConflict: restore.Overwrite}, []string{"GRANT SELECT ON public.p TO $user;", `GRANT DELETE ON "public"."t" TO $user;`},
	},
}

// TestDeniedPrivilegesAreNamed checks that the errors name the privilege that is missing and the role that lacks it. The test
// runs the statements that the errors give, after which the restore must succeed.
func TestDeniedPrivilegesAreNamed(t *testing.T) {
	if testing.Short() {
		t.Skip("restores with many roles")
	}
	t.Parallel()
	for name, c := range deniedCases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			suffix := d.Query("SELECT substr(md5(random()::text), 1, 8)")
			user, owner := `"Restorer_`+suffix+`"`, "owner_"+suffix
			fill := strings.NewReplacer("$user", user, "$owner", owner, "$database", d.Query("SELECT current_database()")).Replace
			d.Exec(fill("CREATE ROLE $user LOGIN; CREATE ROLE $owner"))
			t.Cleanup(func() { d.Exec(fill("DROP OWNED BY $user, $owner CASCADE; DROP ROLE $user, $owner")) })
			d.Exec(c.tables)
			table := "t"
			if schema := d.Query("SELECT quote_ident(schemaname) FROM pg_tables WHERE tablename = 't'"); schema != "public" {
				table = schema + ".t"
			}
			o := c.o
			o.Path = d.Export(table)
			d.Exec(fill(c.change))
			if !o.Create {
				privileges := "SELECT, INSERT, UPDATE, DELETE"
				if name == "referenced table without triggers" {
					privileges = "SELECT, INSERT, UPDATE"
				}
				d.Exec(fill("GRANT " + privileges + " ON t TO $user"))
			}
			other := d.asRole(strings.Trim(user, `"`))
			for _, statement := range c.want {
				statement = fill(statement)
				for _, o.DryRun = range []bool{true, false} {
					other.wantRefused(o, statement)
				}
				d.Exec(regexp.MustCompile(`^hint: | \(.*| or .*`).ReplaceAllString(statement, ""))
			}
			o.DryRun = false
			if _, err := restore.Restore(context.Background(), other.Conn, o); err != nil {
				t.Fatal(fmt.Errorf("after the statements: %w", err))
			}
			d.wantEqual(o.Path, table)
		})
	}
}
