package restore_test

import (
	"strings"
	"testing"

	"capture/internal/restore"
	"capture/internal/verify"
)

func (d *db) wantEqual(path, table string) {
	d.Helper()
	r := d.verify(verify.Options{Path: path, Database: d.Config, Table: d.Name(table)})
	if !r.OK {
		d.Errorf("after the restore, %s differs: %+v %+v", table, r, r.Difference)
	}
}

func TestStates(t *testing.T) {
	if testing.Short() {
		t.Skip("restores many tables")
	}
	t.Parallel()
	whole := newDB(t)
	for _, c := range []struct{ name, create, change, since string }{
		{"swapped unique", "CREATE TABLE t (id int PRIMARY KEY, pos int UNIQUE, pos2 int NOT NULL UNIQUE); INSERT INTO t SELECT i, i, i FROM generate_series(1, 100) i",
			"UPDATE t SET pos = -pos, pos2 = -pos2; UPDATE t SET pos = 101 + pos, pos2 = 101 + pos2", ""},
		{"chain of unique", "CREATE TABLE t (id int PRIMARY KEY, pos int UNIQUE); INSERT INTO t SELECT i, i FROM generate_series(1, 100) i",
			"DELETE FROM t WHERE id = 50; UPDATE t SET pos = pos + 1000; UPDATE t SET pos = pos - 999; INSERT INTO t VALUES (500, 1)", ""},
		{"swapped, children cascade", "CREATE TABLE t (id int PRIMARY KEY, pos int UNIQUE); CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE); INSERT INTO t VALUES (1, 1), (2, 2); INSERT INTO c VALUES (1), (2)",
			"UPDATE t SET pos = 3 WHERE id = 1; UPDATE t SET pos = 1 WHERE id = 2; UPDATE t SET pos = 2 WHERE id = 1", ""},
		{"swapped not null, children cascade", "CREATE TABLE t (id int PRIMARY KEY, pos int NOT NULL UNIQUE); CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE); INSERT INTO t VALUES (1, 1), (2, 2); INSERT INTO c VALUES (1), (2)",
			"UPDATE t SET pos = 3 WHERE id = 1; UPDATE t SET pos = 1 WHERE id = 2; UPDATE t SET pos = 2 WHERE id = 1", ""},
		{"exclusion", "CREATE TABLE t (id int PRIMARY KEY, r int4range, EXCLUDE USING gist (r WITH &&)); INSERT INTO t VALUES (1, '[1,5)'), (2, '[5,9)')",
			"UPDATE t SET r = 'empty'; UPDATE t SET r = '[5,9)' WHERE id = 1; UPDATE t SET r = '[1,5)' WHERE id = 2", ""},
		{"self reference", "CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t, v text); INSERT INTO t SELECT i, NULL, repeat('x', 30000) FROM generate_series(1, 100) i; UPDATE t SET up = 100 WHERE id = 1; UPDATE t SET up = id - 1 WHERE id > 30",
			"TRUNCATE t", ""}, // rows of 30 kB make the file larger than a batch
		{"self reference, changed", "CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t, v text); INSERT INTO t VALUES (1, NULL), (2, 1), (3, 2)",
			"UPDATE t SET up = NULL; DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (7, 2), (8, 7); UPDATE t SET up = 8 WHERE id = 3", ""},
		{"self reference, cascade", "CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t ON DELETE CASCADE, pos int UNIQUE); INSERT INTO t VALUES (1, NULL, 1), (2, 1, 2), (3, 2, 3)",
			"INSERT INTO t VALUES (7, NULL, 7); UPDATE t SET up = 7; UPDATE t SET pos = -pos; UPDATE t SET pos = 4 + pos", ""},
		{"self reference, set null", "CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t ON DELETE SET NULL, pos int UNIQUE); INSERT INTO t VALUES (1, NULL, 1), (2, 1, 2), (3, 2, 3)",
			"INSERT INTO t VALUES (7, NULL, 7); UPDATE t SET up = 7; UPDATE t SET pos = -pos; UPDATE t SET pos = 4 + pos", ""},
		{"identity always", "CREATE TABLE t (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY UNIQUE, v text); INSERT INTO t SELECT i FROM generate_series(1, 10) i",
			"DELETE FROM t; INSERT INTO t SELECT 11 - i FROM generate_series(1, 10) i", ""},
		{"collation of the key", `CREATE COLLATION ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false); CREATE TABLE t (id text COLLATE ci PRIMARY KEY, v text COLLATE ci); INSERT INTO t VALUES ('a', 'x'), ('B', 'y')`,
			"UPDATE t SET id = upper(id), v = upper(v)", ""},
		{"numeric key", `CREATE TABLE t (id numeric PRIMARY KEY, v numeric); INSERT INTO t VALUES (1.0, 1), (2, 2.0)`,
			"UPDATE t SET id = id + 0.00, v = v + 0.000", ""},
		{"float", `CREATE TABLE t (id float8 PRIMARY KEY, v float8); INSERT INTO t VALUES ('-0', '-0'), (2, 'NaN')`,
			"UPDATE t SET id = 0, v = 0 WHERE id = 0", ""},
		{"types without equality", `CREATE TABLE t (id int PRIMARY KEY, j json, p point, x xml); INSERT INTO t VALUES (1, '{"a" : 1}', '(1,2)', '<a/>'), (2, NULL, NULL, NULL)`,
			`UPDATE t SET j = '{"a":1}', p = '(1,2.0000001)', x = '<a></a>'`, ""},
		{"deferrable", `CREATE TABLE t (id int PRIMARY KEY, pos int UNIQUE DEFERRABLE INITIALLY IMMEDIATE, up int REFERENCES t DEFERRABLE); INSERT INTO t VALUES (1, 1, 1), (2, 2, 1)`,
			`UPDATE t SET pos = 3 - pos`, ""},
		{"partial and expression indexes", `CREATE TABLE t (id int PRIMARY KEY, v text NOT NULL, on_ bool NOT NULL); CREATE UNIQUE INDEX ON t (lower(v)) WHERE on_; INSERT INTO t VALUES (1, 'a', true), (2, 'b', true), (3, 'a', false)`,
			`UPDATE t SET on_ = false; UPDATE t SET v = CASE id WHEN 1 THEN 'B' WHEN 2 THEN 'A' ELSE 'c' END; UPDATE t SET on_ = true`, ""},
		{"column that the file lacks", `CREATE TABLE t (id int PRIMARY KEY, pos int UNIQUE NOT NULL); INSERT INTO t VALUES (1, 1), (2, 2)`,
			`UPDATE t SET pos = 30 WHERE id = 1; UPDATE t SET pos = 1 WHERE id = 2; UPDATE t SET pos = 2 WHERE id = 1`, ""},
		{"unlogged", `CREATE UNLOGGED TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2)`, `UPDATE t SET v = 3`, ""},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			d := whole.sub(t)
			d.Exec("DROP TABLE IF EXISTS t, c")
			create := c.create
			if c.name == "unlogged" {
				create = strings.ReplaceAll(create, "UNLOGGED", "")
			}
			d.Exec(create)
			path := d.Export("t")
			if c.name == "unlogged" {
				d.Exec("ALTER TABLE t SET UNLOGGED")
			}
			d.Exec(c.change)
			o := restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true}
			o.DryRun = true
			dry := d.restore(o)
			o.DryRun = false
			res := d.restore(o)
			t.Logf("%+v", res)
			if dry.Inserted.Rows != res.Inserted.Rows || dry.Overwritten.Rows != res.Overwritten.Rows || dry.Deleted.Rows != res.Deleted.Rows || dry.Unchanged != res.Unchanged {
				t.Errorf("the dry run said %+v, the restore %+v", dry, res)
			}
			d.wantEqual(path, "t")
			if strings.Contains(c.name, "children") && d.Query("SELECT count(*) FROM c") != "2" {
				t.Errorf("rows of the other table went")
			}
			d.Exec("TRUNCATE t CASCADE")
			d.restore(restore.Options{Path: path})
			d.wantEqual(path, "t")
		})
	}
}
