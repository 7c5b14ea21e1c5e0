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

	other := d.as("restorer")
	d.Exec("TRUNCATE t")
	other.wantRefused(restore.Options{Path: path, Table: name, DisableTriggers: true}, "no right to disable the triggers", "owner")
	d.Exec("ALTER SEQUENCE t_id_seq RESTART WITH 1")
	other.wantRefused(restore.Options{Path: path, Table: name}, "no right to set sequence public.t_id_seq", "GRANT")
	d.Exec("GRANT SELECT, UPDATE ON SEQUENCE t_id_seq TO restorer")
	other.restore(restore.Options{Path: path, Table: name})
	seen("2")

	d.Exec("GRANT ALL ON SCHEMA public TO restorers_owner; ALTER TABLE t OWNER TO restorers_owner; TRUNCATE t")
	owner := d.as("restorers_owner")
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
