package restore_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"capture/internal/restore"
	"capture/internal/statefile/statefiletest"
)

// exchange makes the rows 1 and 2 of table t exchange their values of the unique column pos.
const exchange = "UPDATE t SET pos = -pos WHERE id < 3; UPDATE t SET pos = 3 + pos WHERE id < 3;"

// partitioned creates table t with one partition, which has a unique column.
const partitioned = "CREATE TABLE t (id int PRIMARY KEY, pos int) PARTITION BY RANGE (id); CREATE TABLE t0 PARTITION OF t DEFAULT; ALTER TABLE t0 ADD UNIQUE (pos); INSERT INTO t VALUES (1, 1), (2, 2);"

// sideEffects lists restores with --on-conflict overwrite and --delete-extra. Each of them could change data that it must
// leave alone, for example by the action of a foreign key or by a trigger.
var sideEffects = map[string]struct {
	tables  string // creates t and other tables
	change  string // what happens after the file was written
	table   string // name of the restored table; "" means t
	refused string // part of the error; "" if the restore must succeed
	query   string // query for the data that is not in the file
	want    string // result of the query after the restore
}{
	"foreign key to a partition": {
		partitioned + "CREATE TABLE c (t int REFERENCES t0 (id) ON DELETE CASCADE); INSERT INTO c VALUES (1), (2)",
		exchange, "", "", "SELECT count(*) FROM c", "2",
	},
	"partition of a referenced table": {
		partitioned + "CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE); INSERT INTO c VALUES (1), (2)",
		exchange, "t0", "", "SELECT count(*) FROM c", "2",
	},
	"foreign key to a partition, with ON UPDATE": {
		partitioned + "CREATE TABLE c (id int, pos int REFERENCES t0 (pos) ON UPDATE CASCADE)",
		exchange + "INSERT INTO c VALUES (1, 1), (2, 2)", "", "by columns that would change", "SELECT string_agg(id || ':' || pos, ' ' ORDER BY id) FROM c", "1:1 2:2",
	},
	"generated column that is referred to": {
		"CREATE TABLE t (id int PRIMARY KEY, pos int UNIQUE, code text GENERATED ALWAYS AS ('k' || pos) STORED UNIQUE); INSERT INTO t VALUES (1, 1), (2, 2); CREATE TABLE f (id int, code text REFERENCES t (code) ON UPDATE NO ACTION)",
		exchange + "INSERT INTO f VALUES (1, 'k1'), (2, 'k2')", "", "", "SELECT string_agg(id || ':' || code, ' ' ORDER BY id) FROM f", "1:k1 2:k2",
	},
	"column that a trigger derives from an exchanged one": {
		`CREATE TABLE t (id int PRIMARY KEY, pos int UNIQUE, code text UNIQUE); CREATE FUNCTION derive() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN new.code = 'k' || new.pos; RETURN new; END$$;
		CREATE TRIGGER derives BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION derive(); INSERT INTO t VALUES (1, 1), (2, 2);
		CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE); INSERT INTO c VALUES (1), (2); CREATE TABLE f (id int, code text REFERENCES t (code) ON UPDATE SET NULL)`,
		exchange + "INSERT INTO f VALUES (1, 'k1'), (2, 'k2')", "", "by columns that would change", "SELECT string_agg(id || ':' || code, ' ' ORDER BY id) FROM f", "1:k1 2:k2",
	},
	"referring column that the file lacks": {
		"CREATE TABLE t (id int PRIMARY KEY, pos int UNIQUE); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)",
		exchange + "ALTER TABLE t ADD ref int REFERENCES t (pos) ON UPDATE CASCADE; UPDATE t SET ref = 1 WHERE id = 3", "", "", "SELECT ref FROM t WHERE id = 3", "2", // the reference follows row 2
	},
	"trigger that drops inserted rows": {
		"CREATE TABLE t (id int PRIMARY KEY, pos int NOT NULL UNIQUE); INSERT INTO t VALUES (1, 1), (2, 2)",
		exchange + `ALTER TABLE t ADD note text DEFAULT 'kept'; CREATE FUNCTION drop_it() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RETURN NULL; END$$; CREATE TRIGGER drops BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION drop_it()`,
		"", `trigger "drops"`, "SELECT count(note) FROM t", "2",
	},
	"unique violation of a trigger": {
		"CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 1), (2, 2)",
		`CREATE TABLE audit (id int PRIMARY KEY); INSERT INTO audit VALUES (1); CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO audit VALUES (new.id); RETURN new; END$$;
		UPDATE t SET v = v + 10; CREATE TRIGGER notes AFTER UPDATE ON t FOR EACH ROW EXECUTE FUNCTION note()`,
		"", "audit_pkey", "SELECT count(*) FROM audit", "1",
	},
	"foreign key to the table itself, with ON UPDATE": {
		"CREATE TABLE t (id int PRIMARY KEY, pos text UNIQUE, ref text REFERENCES t (pos) ON UPDATE CASCADE); INSERT INTO t VALUES (1, 'C'), (3, 'A'), (2, 'B'); UPDATE t SET ref = 'A' WHERE id = 2",
		"DELETE FROM t; INSERT INTO t VALUES (1, 'A', NULL), (3, 'X', NULL), (2, 'B', 'A')", "", "foreign key may have acted", "SELECT ref FROM t WHERE id = 2", "A",
	},
	"foreign keys by way of another table": {
		"CREATE TABLE t (id int PRIMARY KEY, fav int); CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE); INSERT INTO t VALUES (1, NULL), (2, 10); INSERT INTO c VALUES (10, 1); ALTER TABLE t ADD FOREIGN KEY (fav) REFERENCES c ON DELETE SET NULL",
		"INSERT INTO t VALUES (9); UPDATE c SET t = 9", "", "foreign key may have acted", "SELECT fav FROM t WHERE id = 2", "10",
	},
	"partition with a trigger of its parent": {
		`CREATE TABLE t (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE t0 PARTITION OF t DEFAULT; INSERT INTO t VALUES (1, 'a'), (2, 'b')`,
		`CREATE FUNCTION alter_it() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN new.v = 'altered'; RETURN new; END$$; UPDATE t SET v = 'c'; CREATE TRIGGER alters BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION alter_it()`,
		"t0", `trigger "alters"`, "SELECT string_agg(v, '') FROM t", "cc",
	},
	"MATCH FULL": {
		"CREATE TABLE p (a int, b int, PRIMARY KEY (a, b)); INSERT INTO p VALUES (1, 1); CREATE TABLE t (id int PRIMARY KEY, pos int NOT NULL UNIQUE, a int, b int, FOREIGN KEY (a, b) REFERENCES p MATCH FULL); CREATE TABLE c (t int REFERENCES t ON DELETE RESTRICT); INSERT INTO t VALUES (1, 1, 1, 1), (2, 2, 1, 1); INSERT INTO c VALUES (1), (2)",
		exchange, "", "", "SELECT count(*) FROM c", "2",
	},
	"MATCH FULL without NULL": {
		"CREATE TABLE p (a int, b int, PRIMARY KEY (a, b)); INSERT INTO p VALUES (1, 1); CREATE TABLE t (id int PRIMARY KEY, pos int NOT NULL UNIQUE, a int, b int); CREATE TABLE c (t int REFERENCES t ON DELETE RESTRICT); INSERT INTO t VALUES (1, 1, 1, NULL), (2, 2, NULL, NULL); INSERT INTO c VALUES (1), (2)",
		exchange + "UPDATE t SET a = 1, b = 1; ALTER TABLE t ADD CONSTRAINT full_key FOREIGN KEY (a, b) REFERENCES p MATCH FULL", "", "full_key", "SELECT count(*) FROM c", "2",
	},
	"column that an index only includes": {
		"CREATE TABLE t (id int PRIMARY KEY, pos int, v int CHECK (v IS NOT NULL), UNIQUE (pos) INCLUDE (v)); CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE); INSERT INTO t VALUES (1, 1, 1), (2, 2, 2); INSERT INTO c VALUES (1), (2)",
		exchange, "", "", "SELECT count(*) FROM c", "2",
	},
}

// TestRestoreChangesNothingElse checks that rows of other tables, and columns that the file lacks, have the wanted values
// after each restore in sideEffects. A restore that succeeds must also make the table equal to the file.
func TestRestoreChangesNothingElse(t *testing.T) {
	if testing.Short() {
		t.Skip("restores many tables")
	}
	t.Parallel()
	for name, c := range sideEffects {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			table := c.table
			if table == "" {
				table = "t"
			}
			d.Exec(c.tables)
			o := restore.Options{Path: d.Export(table), OnConflict: restore.Overwrite, DeleteExtra: true}
			d.Exec(c.change)
			for _, o.DryRun = range []bool{true, false} {
				if c.refused != "" {
					d.wantRefused(o, c.refused)
				} else {
					d.restore(o)
				}
			}
			if got := d.Query(c.query); got != c.want {
				t.Errorf("%s is %s, want %s", c.query, got, c.want)
			}
			if strings.Contains(c.change, "ADD ref") {
				d.Exec("ALTER TABLE t DROP ref") // the file lacks this column
			}
			if c.refused == "" {
				d.wantEqual(o.Path, table)
			}
		})
	}
}

// TestDeferredTriggerAfterDeletion checks the result for a file without rows if a deferred trigger inserts rows again.
func TestDeferredTriggerAfterDeletion(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec("CREATE TABLE t (id int PRIMARY KEY)")
	path := d.Export("t")
	d.Exec(`INSERT INTO t VALUES (1); CREATE TABLE log (id int); CREATE FUNCTION back() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN INSERT INTO t VALUES (old.id + 1); INSERT INTO log VALUES (old.id); RETURN NULL; END$$;
		CREATE CONSTRAINT TRIGGER backs AFTER DELETE ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION back()`)
	o := restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true, Table: d.Name("t")}
	d.wantRefused(o, `trigger "backs"`, "kept 1 row of 1")
	o.OnConflict = restore.Skip
	if r := d.restore(o); r.Remaining.Rows != 1 || len(r.Others) != 1 {
		t.Errorf("%+v", r)
	}
}

// TestOwnConstraintsAreDeferred checks that rows may refer to later rows by deferrable foreign keys of the table or of a
// partition, even if the rows are copied in several batches.
func TestOwnConstraintsAreDeferred(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE t (id int PRIMARY KEY, up int REFERENCES t DEFERRABLE, down int, filler text) PARTITION BY RANGE (id); CREATE TABLE "T 0" PARTITION OF t DEFAULT;
		INSERT INTO t SELECT i, 3001 - i, 3001 - i, repeat('x', 1000) FROM generate_series(1, 3000) i; ALTER TABLE "T 0" ADD CONSTRAINT "Down %s" FOREIGN KEY (down) REFERENCES "T 0" DEFERRABLE`)
	path := d.Export("t")
	d.Exec("TRUNCATE t")
	d.restore(restore.Options{Path: path})
	d.wantEqual(path, "t")
}

// TestConstraintsOfOtherTables checks that a restore does not change whether constraints of other tables are immediate or
// deferred, because triggers may rely on that.
func TestConstraintsOfOtherTables(t *testing.T) {
	t.Parallel()
	const function = "CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
	for name, c := range map[string]struct{ sql, query, want string }{
		"immediate constraint": {"CREATE TABLE seen (v int UNIQUE DEFERRABLE);" + function + "BEGIN INSERT INTO seen VALUES (new.v); EXCEPTION WHEN unique_violation THEN END; RETURN new; END $$;" +
			"CREATE TRIGGER acts AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION act()", "SELECT string_agg(v::text, ' ') FROM seen", "7"},
		"deferred constraint": {"CREATE TABLE seen (id int PRIMARY KEY); CREATE TABLE part (seen int REFERENCES seen DEFERRABLE INITIALLY DEFERRED);" + function + "INSERT INTO part VALUES (new.id); INSERT INTO seen VALUES (new.id); RETURN new; END $$;" +
			"CREATE CONSTRAINT TRIGGER acts AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION act()", "SELECT string_agg(seen::text, ' ' ORDER BY seen) FROM part", "1 2"},
		"violated deferred constraint": {"CREATE TABLE seen (id int PRIMARY KEY); CREATE TABLE part (seen int CONSTRAINT missing REFERENCES seen DEFERRABLE INITIALLY DEFERRED);" + function + "INSERT INTO part VALUES (new.id); RETURN new; END $$;" +
			"CREATE TRIGGER acts AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION act()", "SELECT count(*) FROM part", "0"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			d.Exec("CREATE TABLE t (id int PRIMARY KEY, v int); INSERT INTO t VALUES (1, 7), (2, 7)")
			o := restore.Options{Path: d.Export("t"), OnConflict: restore.Overwrite}
			d.Exec("TRUNCATE t;" + c.sql)
			for _, o.DryRun = range []bool{true, false} {
				if name == "violated deferred constraint" {
					d.wantRefused(o, "missing")
				} else {
					d.restore(o)
				}
			}
			if got := d.Query(c.query); got != c.want {
				t.Errorf("%s is %s, want %s", c.query, got, c.want)
			}
		})
	}
}

// TestRuleInDryRun checks that a dry run and a real run agree if the table has a rule. The rows are inserted by COPY, which
// ignores rules.
func TestRuleInDryRun(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec("CREATE TABLE t (id int PRIMARY KEY); INSERT INTO t VALUES (1), (2)")
	path := d.Export("t")
	d.Exec("DELETE FROM t; INSERT INTO t VALUES (9); CREATE TABLE log (id int); CREATE RULE r AS ON INSERT TO t DO INSTEAD INSERT INTO log VALUES (new.id)")
	o := restore.Options{Path: path}
	for _, o.DryRun = range []bool{true, false} {
		if r := d.restore(o); r.Inserted.Rows != 2 || r.LeftOut.Rows != 0 || len(r.Others) != 0 {
			t.Errorf("%+v", r)
		}
	}
	if got := d.Query("SELECT count(*) FROM t"); got != "3" {
		t.Errorf("the table has %s rows", got)
	}
}

// TestConcurrentReference checks a restore during which another session commits a row of another table. By a foreign key with
// ON DELETE CASCADE, this row refers to a row that the restore deletes and inserts again. The restore must not delete the
// referring row.
func TestConcurrentReference(t *testing.T) {
	t.Parallel()
	for name, c := range rowsToMove {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			d.Exec("CREATE TABLE t (id int PRIMARY KEY, n " + c.column + "); CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
			path := d.Export("t")
			d.Exec(c.change)
			app := &statefiletest.DB{T: t, Config: d.Config, Conn: d.Connect(d.Config)}
			if err := restoreDuring(t, d, app, "INSERT INTO c VALUES (1)", path); err != nil {
				t.Error(err)
			}
			if got := app.Query("SELECT count(*) FROM c"); got != "1" {
				t.Errorf("the other table has %s rows", got)
			}
			d.wantEqual(path, "t")
		})
	}
}

// restoreDuring runs statements in a transaction of app, and restores the file at path meanwhile. It commits the transaction
// once the restore waits for a lock, and returns the restore's error.
func restoreDuring(t *testing.T, d *db, app *statefiletest.DB, statements, path string) error {
	t.Helper()
	app.Exec("BEGIN; " + statements)
	restored := make(chan error, 1)
	go func() {
		_, err := restore.Restore(context.Background(), d.Conn, restore.Options{Path: path, OnConflict: restore.Overwrite})
		restored <- err
	}()
	waitForLock(t, app, d)
	app.Exec("COMMIT")
	return <-restored
}

// TestHooksThatAppear checks that a restore notices a trigger or a foreign key that another session creates while the restore
// waits for the table.
func TestHooksThatAppear(t *testing.T) {
	t.Parallel()
	for _, create := range []string{
		"CREATE FUNCTION alter_it() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN new.pos = 7; RETURN new; END$$; CREATE TRIGGER alters BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION alter_it()",
		"CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE); INSERT INTO c VALUES (1)",
	} {
		d := newDB(t)
		d.Exec("CREATE TABLE t (id int PRIMARY KEY, pos int UNIQUE); INSERT INTO t VALUES (1, 1), (2, 2)")
		path := d.Export("t")
		d.Exec(exchange)
		app := &statefiletest.DB{T: t, Config: d.Config, Conn: d.Connect(d.Config)}
		if err := restoreDuring(t, d, app, create, path); err == nil || !strings.Contains(err.Error(), "somebody changed the") {
			t.Errorf("%s: %v", create, err)
		}
	}
}

// waitForLock waits until the session of d waits for a lock of the session of app.
func waitForLock(t *testing.T, app *statefiletest.DB, d *db) {
	t.Helper()
	for range 1000 {
		if app.Query(fmt.Sprintf("SELECT cardinality(pg_blocking_pids(%d)) > 0", d.Conn.PgConn().PID())) == "t" {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("the restore does not wait for the other session")
}
