package restore_test

import (
	"regexp"
	"testing"

	"capture/internal/restore"
)

const (
	olderThanCheck = "CREATE TABLE t (id int PRIMARY KEY, v int, w int); INSERT INTO t VALUES (1, -1), (2, 2), (3, 3); ALTER TABLE t ADD CONSTRAINT pos CHECK (v > 0) NOT VALID;"
	parents        = "CREATE TABLE p (id int PRIMARY KEY); INSERT INTO p VALUES (1);"
	olderThanKey   = parents + "CREATE TABLE t (id int PRIMARY KEY, p int, w int); INSERT INTO t VALUES (1, 9), (2, 1), (3, 8); ALTER TABLE t ADD CONSTRAINT fk FOREIGN KEY (p) REFERENCES p NOT VALID;"
	// exchanging creates tables whose rows can exchange their values of pos only while foreign keys are off.
	exchanging = parents + "CREATE TABLE t (id int PRIMARY KEY, pos int NOT NULL UNIQUE, p int); CREATE TABLE c (t int); INSERT INTO t VALUES (1, 1, 9), (2, 2, 1), (3, 3, 9); INSERT INTO c VALUES (1), (2), (9);" +
		"ALTER TABLE t ADD CONSTRAINT fk FOREIGN KEY (p) REFERENCES p NOT VALID; ALTER TABLE c ADD CONSTRAINT cfk FOREIGN KEY (t) REFERENCES t ON DELETE CASCADE NOT VALID;"
	exchangeEach = "UPDATE t SET pos = 4 WHERE id = 1; UPDATE t SET pos = 1 WHERE id = 2; UPDATE t SET pos = 2 WHERE id = 1;"
)

// TestRowsOlderThanConstraints checks restores of tables with rows that violate a constraint that is NOT VALID. Such rows do
// not matter if the restore does not change them. Otherwise, the error says how to restore them.
func TestRowsOlderThanConstraints(t *testing.T) {
	if testing.Short() {
		t.Skip("restores many tables")
	}
	t.Parallel()
	dropAdd := func(constraint, definition string) []string {
		return []string{"is NOT VALID", `DROP CONSTRAINT ` + constraint + `;`, `ADD CONSTRAINT ` + constraint + ` ` + definition + ` NOT VALID;`}
	}
	check, key := dropAdd("pos", "CHECK ((v > 0))"), append(dropAdd("fk", "FOREIGN KEY (p) REFERENCES public.p(id)"), "--disable-triggers", "restore table public.p first, so that it has the row")
	for name, c := range map[string]struct {
		tables, change string
		refused        []string // words of the error; nil if the restore must succeed
	}{
		"check of other rows":         {olderThanCheck, "UPDATE t SET w = 1 WHERE id = 2; DELETE FROM t WHERE id = 3", nil},
		"check of an overwritten row": {olderThanCheck, "UPDATE t SET v = 5 WHERE id = 1", append(check, "(id 1)")},
		"check of inserted rows":      {olderThanCheck, "TRUNCATE t", append(check, "(id 1)")},
		"check of a partition": {"CREATE TABLE t (id int PRIMARY KEY, v int) PARTITION BY RANGE (id); CREATE TABLE t0 PARTITION OF t DEFAULT; INSERT INTO t VALUES (1, -1); ALTER TABLE t ADD CONSTRAINT pos CHECK (v > 0) NOT VALID",
			"TRUNCATE t", append(check, "(id 1)", "ALTER TABLE public.t DROP")},
		"check of a domain": {"CREATE DOMAIN d AS int; CREATE TABLE t (id int PRIMARY KEY, v d); INSERT INTO t VALUES (1, -1); ALTER DOMAIN d ADD CONSTRAINT pos CHECK (VALUE > 0) NOT VALID",
			"TRUNCATE t", append(dropAdd("pos", "CHECK ((VALUE > 0))"), "(id 1)", "ALTER DOMAIN public.d DROP")},
		"foreign key of other rows":             {olderThanKey, "UPDATE t SET w = 1 WHERE id = 2; DELETE FROM t WHERE id = 2", nil},
		"foreign key of a row with a new w":     {olderThanKey, "UPDATE t SET w = 1 WHERE id = 1", nil},
		"foreign key of inserted rows":          {olderThanKey, "TRUNCATE t", append(key, "(id 1)")},
		"foreign key of the third row":          {olderThanKey, "DELETE FROM t WHERE id = 3", append(key, "(id 3)")},
		"foreign key of the third and old rows": {olderThanKey, "UPDATE t SET w = 1; UPDATE t SET p = 1 WHERE id = 3", append(key, "(id 3)")},
		"deferred foreign key of the third row": {olderThanKey + "ALTER TABLE t ALTER CONSTRAINT fk DEFERRABLE", "DELETE FROM t WHERE id = 3", append(dropAdd("fk", "FOREIGN KEY (p) REFERENCES public.p(id) DEFERRABLE"), "(id 3)", "restore table public.p first")},
		"foreign key to the table itself":       {"CREATE TABLE t (id int PRIMARY KEY, p int); INSERT INTO t VALUES (1, 9); ALTER TABLE t ADD CONSTRAINT fk FOREIGN KEY (p) REFERENCES t NOT VALID", "TRUNCATE t", append(dropAdd("fk", "FOREIGN KEY (p) REFERENCES public.t(id)"), "(id 1)", "hint: the constraint")},
		"exchange beside older rows":            {exchanging, exchangeEach, nil},
		"exchange with a missing parent":        {exchanging, exchangeEach + "UPDATE t SET p = 1 WHERE id = 1", append(key, `foreign key "fk"`)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			d.Exec(c.tables)
			o := restore.Options{Path: d.Export("t"), OnConflict: restore.Overwrite, DeleteExtra: true}
			for _, sql := range []string{"SET session_replication_role = replica", c.change, "RESET session_replication_role"} {
				d.Exec(sql)
			}
			if c.refused != nil {
				o.DryRun = true
				d.wantRefused(o, c.refused...)
				o.DryRun = false
				err := d.wantRefused(o, c.refused...)
				hint := regexp.MustCompile(`first run (.*;) and after the restore (.*;)`).FindStringSubmatch(err.Error())
				if hint == nil {
					t.FailNow()
				}
				d.Exec(hint[1])
				defer d.Exec(hint[2])
			}
			d.restore(o)
			d.wantEqual(o.Path, "t")
		})
	}
}

// TestNotNullThatIsNotValid is like TestRowsOlderThanConstraints, but for a NOT NULL constraint.
func TestNotNullThatIsNotValid(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	if d.version() < 18 {
		t.Skip("NOT NULL … NOT VALID exists since PostgreSQL 18")
	}
	d.Exec("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1); ALTER TABLE t ADD CONSTRAINT has NOT NULL v NOT VALID")
	path := d.Export("t")
	d.Exec("TRUNCATE t")
	d.wantRefused(restore.Options{Path: path}, "(id 1)", "is NOT VALID", "DROP CONSTRAINT has;", "ADD CONSTRAINT has NOT NULL v NOT VALID;")
}

// TestNotEnforcedForeignKey checks that a restore ignores a foreign key that is NOT ENFORCED, as Postgres does.
func TestNotEnforcedForeignKey(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	if d.version() < 18 {
		t.Skip("NOT ENFORCED exists for foreign keys since PostgreSQL 18")
	}
	d.Exec(exchanging + "ALTER TABLE t DROP CONSTRAINT fk, ADD CONSTRAINT fk FOREIGN KEY (p) REFERENCES p NOT ENFORCED")
	path := d.Export("t")
	d.Exec(exchangeEach + "UPDATE t SET p = 1")
	d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite})
	d.wantEqual(path, "t")
}
