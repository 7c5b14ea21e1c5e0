package restore_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"capture/internal/postgres"
	"capture/internal/restore"
)

func TestDisableTriggersWithAndWithoutPrivileges(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE t (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, v text, n int DEFAULT 3);
		CREATE TABLE seen (id bigint);
		CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO seen VALUES (NEW.id); RETURN NEW; END $$;
		CREATE TRIGGER see BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION see();
		CREATE TRIGGER never BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION see(); ALTER TABLE t DISABLE TRIGGER never;
		DROP ROLE IF EXISTS restorer; CREATE ROLE restorer LOGIN; DROP ROLE IF EXISTS restorers_owner; CREATE ROLE restorers_owner LOGIN;
		GRANT SELECT, INSERT, UPDATE, DELETE ON t TO restorer`)
	t.Cleanup(func() { d.Exec("DROP OWNED BY restorer, restorers_owner; DROP ROLE restorer, restorers_owner") })
	path := d.WriteFile(`[{"id":10,"v":"a"},{"id":11,"v":"b"}]`)
	name := d.Name("t")
	seen := func(want string) {
		t.Helper()
		if got := d.Query("SELECT count(*) FROM seen"); got != want {
			t.Errorf("the trigger saw %s rows, not %s", got, want)
		}
		d.Exec("TRUNCATE seen")
	}
	d.restore(restore.Options{Path: path, Table: name})
	seen("2")
	if id := d.Query("INSERT INTO t (v) VALUES ('next') RETURNING id, n"); id != "12|3" {
		t.Errorf("the next row is %s", id)
	}
	d.Exec("TRUNCATE t; TRUNCATE seen")
	d.restore(restore.Options{Path: path, Table: name, DisableTriggers: true})
	seen("0")

	other := d.asRole("restorer")
	d.Exec("TRUNCATE t")
	other.wantRefused(restore.Options{Path: path, Table: name, DisableTriggers: true}, "no right to disable the triggers", "owner")
	d.Exec("ALTER SEQUENCE t_id_seq RESTART WITH 1")
	other.wantRefused(restore.Options{Path: path, Table: name}, "no right to set sequence public.t_id_seq", "GRANT")
	d.Exec("GRANT SELECT, UPDATE ON SEQUENCE t_id_seq TO restorer")
	other.restore(restore.Options{Path: path, Table: name})
	seen("2")

	d.Exec("GRANT ALL ON SCHEMA public TO restorers_owner; ALTER TABLE t OWNER TO restorers_owner; TRUNCATE t")
	owner := d.asRole("restorers_owner")
	res := owner.restore(restore.Options{Path: path, Table: name, DisableTriggers: true})
	seen("0")
	if got := d.Query("SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 't'::regclass ORDER BY 1"); got != "never|D\nsee|O" {
		t.Errorf("the triggers are left as %s", got)
	}
	if !strings.Contains(strings.Join(res.Notes, " "), "foreign keys did") {
		t.Errorf("the notes are %q", res.Notes)
	}
	d.Exec("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
	_, err := restore.Restore(context.Background(), other.Conn, restore.Options{Path: path, Table: name})
	var problem *postgres.Problem
	if !errors.As(err, &problem) || !strings.Contains(err.Error(), "row-level security") {
		t.Errorf("row-level security gave %v", err)
	}
}

// TestTriggersStayAsTheyWere checks that no trigger acts during a restore with --disable-triggers, and that each trigger of the
// table and of its partitions is enabled afterwards as it was before. The test restores as the owner of the table, for whom
// --disable-triggers must disable each trigger.
func TestTriggersStayAsTheyWere(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE t (id int PRIMARY KEY, v int CHECK (v > 0)) PARTITION BY RANGE (id); CREATE TABLE seen (part text, by text);
		CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN INSERT INTO seen VALUES (TG_TABLE_NAME, TG_NAME); RETURN NEW; END $$;
		CREATE TABLE p1 PARTITION OF t FOR VALUES FROM (1) TO (10) PARTITION BY RANGE (id); CREATE TABLE p1a PARTITION OF p1 FOR VALUES FROM (1) TO (5);
		CREATE TABLE p1b PARTITION OF p1 FOR VALUES FROM (5) TO (10); CREATE TABLE p2 PARTITION OF t FOR VALUES FROM (10) TO (20); CREATE TABLE p3 PARTITION OF t DEFAULT;
		CREATE TRIGGER a AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION see(); CREATE TRIGGER b BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION see();
		CREATE TRIGGER c BEFORE INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION see(); CREATE TRIGGER d BEFORE INSERT ON p2 FOR EACH ROW EXECUTE FUNCTION see();
		ALTER TABLE ONLY p1a ENABLE ALWAYS TRIGGER a; ALTER TABLE ONLY p1b DISABLE TRIGGER a; ALTER TABLE ONLY p2 ENABLE REPLICA TRIGGER a; ALTER TABLE ONLY p1 ENABLE REPLICA TRIGGER a;
		ALTER TABLE ONLY t DISABLE TRIGGER b; ALTER TABLE ONLY p1 DISABLE TRIGGER b; ALTER TABLE ONLY p1b ENABLE REPLICA TRIGGER b; ALTER TABLE ONLY p2 ENABLE ALWAYS TRIGGER b;
		ALTER TABLE t ENABLE ALWAYS TRIGGER c; ALTER TABLE p2 ENABLE ALWAYS TRIGGER d`)
	name := d.newRole()
	d.Exec("GRANT ALL ON SCHEMA public TO " + name + "; ALTER TABLE t OWNER TO " + name + "; ALTER TABLE p1 OWNER TO " + name + "; ALTER TABLE p1a OWNER TO " + name +
		"; ALTER TABLE p1b OWNER TO " + name + "; ALTER TABLE p2 OWNER TO " + name + "; ALTER TABLE p3 OWNER TO " + name)
	state := func() string {
		return d.Query("SELECT tgrelid::regclass, tgname, tgenabled FROM pg_trigger WHERE tgfoid = 'see'::regproc ORDER BY 1, 2")
	}
	was := state()
	good := d.WriteFile(`[{"id":1,"v":1},{"id":5,"v":1},{"id":10,"v":1},{"id":20,"v":1}]`)
	bad := d.WriteFile(`[{"id":2,"v":1},{"id":6,"v":-1}]`)
	owner := d.asRole(name)
	check := func(what string) {
		t.Helper()
		if now := state(); now != was {
			t.Errorf("after %s, the triggers are\n%s\nand were\n%s", what, now, was)
		}
		if seen := d.Query("SELECT * FROM seen"); seen != "" {
			t.Errorf("after %s, triggers have acted:\n%s", what, seen)
		}
	}
	for _, onConflict := range []restore.OnConflict{restore.Fail, restore.Overwrite} {
		o := restore.Options{Path: good, Table: d.Name("t"), OnConflict: onConflict, DisableTriggers: true}
		o.DryRun = true
		owner.restore(o)
		check("a dry run")
		o.DryRun, o.Path = false, bad
		owner.wantRefused(o, "t_v_check")
		check("a failed restore")
		o.Path = good
		owner.restore(o)
		check("a restore")
		d.Exec("UPDATE t SET v = 2; TRUNCATE seen")
	}
	// A trigger of t has a clone on each partition. Whether a clone fires depends on the clone's own state, not on the state of
	// the trigger of t.
	d.Exec("TRUNCATE t; ALTER TABLE ONLY p2 DISABLE TRIGGER d; ALTER TABLE ONLY t ENABLE REPLICA TRIGGER b; ALTER TABLE t DISABLE TRIGGER c; ALTER TABLE t DISABLE TRIGGER a")
	d.Exec(`CREATE OR REPLACE FUNCTION see() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$ BEGIN NEW.v := 9; RETURN NEW; END $$`)
	owner.wantRefused(restore.Options{Path: good, Table: d.Name("t")}, `trigger "b" of table public.p2`, "changed 3 rows of 4")
}

// TestTriggersOfAnothersPartitions checks that the owner of a table can turn off a trigger of the table even on partitions that
// another role owns.
func TestTriggersOfAnothersPartitions(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE t (id int PRIMARY KEY) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF t DEFAULT PARTITION BY RANGE (id); CREATE TABLE p1a PARTITION OF p1 DEFAULT;
		CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused'; END $$; CREATE TRIGGER refuses BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION refuse()`)
	name := d.newRole()
	d.Exec("GRANT ALL ON SCHEMA public TO " + name + "; ALTER TABLE t OWNER TO " + name)
	o := restore.Options{Path: d.WriteFile(`[{"id":1},{"id":2}]`), Table: d.Name("t"), DisableTriggers: true}
	d.asRole(name).restore(o)
	if got := d.Query("SELECT string_agg(tgenabled::text, '') FROM pg_trigger WHERE tgname = 'refuses'"); got != "OOO" {
		t.Errorf("the triggers are %s", got)
	}
	d.Exec("TRUNCATE t; ALTER TABLE ONLY p1a ENABLE ALWAYS TRIGGER refuses")
	d.asRole(name).wantRefused(o, "no right to disable the triggers of table public.p1")
}
