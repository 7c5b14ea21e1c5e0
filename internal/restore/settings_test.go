package restore_test

import (
	"testing"

	"capture/internal/restore"
	"capture/internal/statefile/statefiletest"
)

// TestSettingsOfTheDatabase checks that triggers, defaults and CHECK constraints run with the settings of the database, as they
// do for an application. The file's values must still be read with capture's own settings.
func TestSettingsOfTheDatabase(t *testing.T) {
	if testing.Short() {
		t.Skip("restores under many settings")
	}
	t.Parallel()
	const settings = "concat_ws(' ', current_setting('TimeZone'), current_setting('DateStyle'), current_setting('IntervalStyle'), current_setting('bytea_output'), current_setting('extra_float_digits'), current_setting('xmloption'), current_setting('search_path'))"
	const wantSettings = "Asia/Tokyo SQL, DMY iso_8601 escape 0 document app, public"
	const logs = "CREATE TABLE log (s text); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO public.log VALUES (" + settings + "); RETURN COALESCE(new, old); END $$;"
	for name, c := range map[string]struct {
		tables string // creates t and fills it in a session with the database's settings
		file   string // content of the file; "" if the file is an export of t
		change string
		query  string // query whose result must equal wantSettings; "" for no query
	}{
		"trigger that inserts": {`CREATE TABLE t (id int PRIMARY KEY, at timestamptz, day date, text text);
			CREATE FUNCTION fill() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.day := new.at::date; new.text := new.at; RETURN new; END $$;
			CREATE TRIGGER fills BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION fill(); INSERT INTO t VALUES (1, '2026-01-02 20:00Z')`, "", "TRUNCATE t", ""},
		"triggers of a merge": {logs + "CREATE TABLE t (id int PRIMARY KEY, v int UNIQUE); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3); CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE); INSERT INTO c VALUES (1), (2)",
			"", "UPDATE t SET v = -v WHERE id < 3; UPDATE t SET v = 3 + v WHERE id < 3; DELETE FROM t WHERE id = 3; INSERT INTO t VALUES (4, 4);" +
				"CREATE TRIGGER notes BEFORE INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION note(); CREATE CONSTRAINT TRIGGER later AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION note()",
			"SELECT DISTINCT s FROM log"},
		"trigger of a table that becomes empty": {logs + "CREATE TABLE t (id int PRIMARY KEY)", "", "INSERT INTO t VALUES (1); CREATE TRIGGER notes BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION note()", "SELECT DISTINCT s FROM log"},
		"default":                               {"CREATE TABLE t (id int PRIMARY KEY, d text DEFAULT " + settings + ")", `[{"id":1},{"id":2}]`, "", "SELECT DISTINCT d FROM t"},
		"default of a function":                 {"CREATE FUNCTION f() RETURNS text LANGUAGE sql VOLATILE AS $$ SELECT " + settings + " $$; CREATE TABLE t (id int PRIMARY KEY, d text DEFAULT public.f())", `[{"id":1}]`, "", "SELECT d FROM t"},
		"keyword as a default":                  {"CREATE TABLE t (id int PRIMARY KEY, d text DEFAULT CURRENT_DATE)", `[{"id":1}]`, "", "SELECT CASE WHEN d LIKE '%/%/%' THEN '" + wantSettings + "' ELSE d END FROM t"},
		"check":                                 {"CREATE TABLE t (id int PRIMARY KEY, at timestamptz, day date, CHECK (day = at::date)); INSERT INTO t VALUES (1, '2026-01-02 20:00Z', '03.01.2026')", "", "TRUNCATE t", ""},
		"check of a partition":                  {"CREATE TABLE t (id int PRIMARY KEY, at timestamptz, text text) PARTITION BY RANGE (id); CREATE TABLE t0 PARTITION OF t (CHECK (text = at::text)) DEFAULT; INSERT INTO t VALUES (1, '2026-01-02 20:00Z', '03/01/2026 05:00:00 JST')", "", "TRUNCATE t", ""},
		"values without a zone": {"CREATE TABLE t (id int PRIMARY KEY, at timestamptz, d text DEFAULT " + settings + ")", `[{"id":1,"at":"2026-01-02 20:00"}]`, "",
			"SELECT d FROM t WHERE at = '2026-01-02 20:00Z'"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			d.Exec(`DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET TimeZone = ''Asia/Tokyo''', current_database()); EXECUTE format('ALTER DATABASE %I SET DateStyle = ''SQL, DMY''', current_database());
				EXECUTE format('ALTER DATABASE %I SET IntervalStyle = ''iso_8601''', current_database()); EXECUTE format('ALTER DATABASE %I SET bytea_output = ''escape''', current_database());
				EXECUTE format('ALTER DATABASE %I SET extra_float_digits = 0', current_database()); EXECUTE format('ALTER DATABASE %I SET xmloption = document', current_database());
				EXECUTE format('ALTER DATABASE %I SET search_path = app, public', current_database()); END $$`)
			d = &db{&statefiletest.DB{T: t, Config: d.Config, Conn: d.Connect(d.Config)}}
			app := func(sql string) {
				t.Helper()
				d.Exec("BEGIN; SET LOCAL TimeZone TO DEFAULT; SET LOCAL DateStyle TO DEFAULT; " + sql + "; COMMIT")
			}
			app(c.tables)
			o := restore.Options{OnConflict: restore.Overwrite, DeleteExtra: true, Table: d.Name("t")}
			if o.Path = d.WriteFile(c.file); c.file == "" {
				o.Path = d.Export("t")
			}
			if c.change != "" {
				app(c.change)
			}
			o.DryRun = true
			d.restore(o)
			o.DryRun = false
			d.restore(o)
			if c.query != "" {
				if got := d.Query(c.query); got != wantSettings {
					t.Errorf("the settings were %s, want %s", got, wantSettings)
				}
			}
			if c.file == "" {
				d.wantEqual(o.Path, "t")
			}
		})
	}
}
