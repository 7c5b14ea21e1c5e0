package restore_test

import (
	"fmt"
	"strings"
	"testing"

	"capture/internal/restore"
	"capture/internal/verify"
)

// TestTriggersThatLeaveOutOrChangeRows checks restores into tables whose triggers or rules leave out, change or add rows, or
// keep rows that the restore deletes. If the table must equal the file, the restore fails. Otherwise, the result counts
// these rows.
func TestTriggersThatLeaveOutOrChangeRows(t *testing.T) {
	if testing.Short() {
		t.Skip("restores many tables")
	}
	t.Parallel()
	const table = `CREATE TABLE t (id int PRIMARY KEY, v text, at timestamp); INSERT INTO t SELECT i, 'v' || i, '2026-01-01' FROM generate_series(1, 10) i;`
	whole := newDB(t)
	skip := `CREATE OR REPLACE FUNCTION half() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF coalesce(NEW.id, OLD.id) % 2 = 0 THEN RETURN NULL; END IF; RETURN coalesce(NEW, OLD); END $$;`
	for _, c := range []struct {
		name, trigger    string
		leftOut, changed int64
		remaining        int64
		words            []string
		overwriteOnly    bool // whether the trigger or rule acts only when rows are overwritten or deleted
	}{
		{name: "before insert", trigger: skip + "CREATE TRIGGER skip_half BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION half()", leftOut: 5, words: []string{`trigger "skip_half" of table public.t (function public.half)`, "left out 5 rows of 10", "key 2"}},
		{name: "before insert, changes", trigger: `CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.at = '2026-02-02'; RETURN NEW; END $$;
			CREATE TRIGGER touch BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION touch()`, changed: 10, words: []string{`trigger "touch"`, "changed 10 rows of 10"}},
		{name: "after insert, deletes", trigger: `CREATE FUNCTION purge() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN DELETE FROM t WHERE id <= 3; RETURN NULL; END $$;
			CREATE TRIGGER purge AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION purge()`, leftOut: 3, words: []string{`trigger "purge"`, "left out 3 rows"}},
		{name: "after insert, adds", trigger: `CREATE FUNCTION add() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.id < 100 THEN INSERT INTO t VALUES (NEW.id + 100); END IF; RETURN NULL; END $$;
			CREATE TRIGGER add AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION add()`, remaining: 10, words: []string{`trigger "add"`, "kept or added 10 rows"}},
		{name: "deferred", trigger: `CREATE FUNCTION late() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN UPDATE t SET v = 'late' WHERE id = NEW.id; RETURN NULL; END $$;
			CREATE CONSTRAINT TRIGGER late AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION late()`, changed: 10, words: []string{`trigger "late"`, "changed 10 rows"}},
		{name: "always", trigger: skip + "CREATE TRIGGER skip_half BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION half(); ALTER TABLE t ENABLE ALWAYS TRIGGER skip_half", leftOut: 5, words: []string{`trigger "skip_half"`}},
		{name: "keeps rows", trigger: skip + "CREATE TRIGGER keep_half BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION half()", overwriteOnly: true, remaining: 5, words: []string{`trigger "keep_half"`, "kept or added 5 rows"}},
		{name: "rule", trigger: "CREATE RULE no_half AS ON INSERT TO t WHERE NEW.id % 2 = 0 DO INSTEAD NOTHING", overwriteOnly: true, leftOut: 5, words: []string{`rule "no_half"`, "left out 5 rows"}},
		{name: "rule that keeps", trigger: "CREATE RULE keep AS ON DELETE TO t DO INSTEAD NOTHING", overwriteOnly: true, remaining: 10, words: []string{`rule "keep"`, "kept or added 10 rows"}},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "_"), func(t *testing.T) {
			d := whole.sub(t)
			d.Exec("DROP TABLE IF EXISTS t;" + table)
			path := d.Export("t")
			d.Exec("TRUNCATE t")
			empty := "TRUNCATE t"
			exact := restore.Options{Path: path}
			if c.overwriteOnly {
				empty = "TRUNCATE t; INSERT INTO t SELECT i FROM generate_series(21, 30) i"
				exact = restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true}
			}
			d.Exec(empty)
			before := d.Query("SELECT * FROM t ORDER BY id")
			d.Exec(c.trigger)
			d.wantRefused(exact, append(c.words, "--disable-triggers")...)
			exact.DryRun = true
			d.wantRefused(exact, append(c.words, "--disable-triggers")...)
			if got := d.Query("SELECT * FROM t ORDER BY id"); got != before {
				t.Errorf("it left the rows\n%s", got)
			}

			tolerant := restore.Options{Path: path, OnConflict: restore.Skip, DeleteExtra: c.overwriteOnly}
			for _, tolerant.DryRun = range []bool{true, false} {
				res := d.restore(tolerant)
				if res.LeftOut.Rows != c.leftOut || res.Changed.Rows != c.changed || tolerant.DeleteExtra && res.Remaining.Rows != c.remaining {
					t.Errorf("the result is %+v", res)
				}
				if !tolerant.DryRun {
					if got := d.Query("SELECT count(*) FROM t"); c.name != "after insert, adds" && c.name != "after insert, deletes" && got != fmt.Sprint(res.Inserted.Rows+res.Remaining.Rows) {
						t.Errorf("%+v, and the table has %s rows", res, got)
					}
				}
			}

			last := c.trigger[strings.LastIndex(c.trigger, "CREATE "):]
			d.Exec("DROP RULE IF EXISTS no_half ON t; DROP RULE IF EXISTS keep ON t; DROP TRIGGER IF EXISTS keep_half ON t; " + empty)
			if c.overwriteOnly {
				d.Exec(last)
			}
			exact.DryRun, exact.DisableTriggers = false, true
			if c.name == "always" {
				d.Exec("ALTER TABLE t ENABLE ALWAYS TRIGGER skip_half")
				d.wantRefused(exact, `trigger "skip_half"`, "ALWAYS")
				return
			}
			d.restore(exact)
			d.wantEqual(path, "t")
		})
	}
}

// TestPlainInsertsReportTriggers checks a restore that only inserts rows, into a table that already has other rows. A
// trigger leaves out or changes some of the inserted rows, and the result must count them.
func TestPlainInsertsReportTriggers(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(20)
	path := d.Export("votes")
	d.Exec(`TRUNCATE votes; INSERT INTO votes (vote_id) VALUES (100);
		CREATE FUNCTION half() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF NEW.vote_id % 2 = 0 THEN RETURN NULL; END IF; NEW.comment = 'x'; RETURN NEW; END $$;
		CREATE TRIGGER half BEFORE INSERT ON votes FOR EACH ROW EXECUTE FUNCTION half()`)
	for _, dryRun := range []bool{true, false} {
		res := d.restore(restore.Options{Path: path, DryRun: dryRun})
		if res.Inserted.Rows != 10 || res.LeftOut.Rows != 10 || res.Changed.Rows != 10 || !strings.Contains(res.By, `trigger "half"`) ||
			fmt.Sprint(res.Inserted.Keys, res.LeftOut.Keys) != "[1 3 5 7 9] [2 4 6 8 10]" {
			t.Errorf("dry run %v: %+v", dryRun, res)
		}
	}
	if got := d.Query("SELECT count(*) FROM votes"); got != "11" {
		t.Errorf("the table has %s rows", got)
	}
}

// TestTriggersOfPartitions checks that a restore into a partitioned table notices what the triggers of the table and of its
// partitions do to the rows.
func TestTriggersOfPartitions(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE p (id int PRIMARY KEY, v text) PARTITION BY RANGE (id); CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (100);
		INSERT INTO p SELECT i, 'v' FROM generate_series(1, 20) i`)
	path := d.Export("p")
	d.Exec(`TRUNCATE p; CREATE FUNCTION no_row() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER none BEFORE INSERT ON p2 FOR EACH ROW EXECUTE FUNCTION no_row()`)
	d.wantRefused(restore.Options{Path: path}, `trigger "none" of table public.p2`, "left out 11 rows of 20")
	d.Exec(`ALTER TABLE p2 DISABLE TRIGGER none; CREATE FUNCTION change() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.v = 'changed'; RETURN NEW; END $$;
		CREATE TRIGGER change BEFORE INSERT ON p FOR EACH ROW EXECUTE FUNCTION change()`)
	d.wantRefused(restore.Options{Path: path}, `trigger "change" of table public.p `, "changed 20 rows of 20")
	d.restore(restore.Options{Path: path, DisableTriggers: true})
	d.wantEqual(path, "p")
}

// TestRowsOfOtherTables checks that the result counts the rows that foreign keys delete or update in other tables, and the
// rows that triggers write there.
func TestRowsOfOtherTables(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec(`CREATE TABLE t (id int PRIMARY KEY, v text); CREATE TABLE c (id int PRIMARY KEY, t int REFERENCES t ON DELETE CASCADE); CREATE TABLE g (c int REFERENCES c ON DELETE CASCADE);
		CREATE TABLE n (t int REFERENCES t ON DELETE SET NULL); CREATE TABLE audit (what text);
		INSERT INTO t VALUES (1, 'a'), (2, 'b')`)
	path := d.Export("t")
	d.Exec(`INSERT INTO t VALUES (3, 'c'), (4, 'd'); INSERT INTO c SELECT i, 1 + i % 4 FROM generate_series(1, 40) i; INSERT INTO g SELECT id FROM c; INSERT INTO n SELECT id FROM t;
		UPDATE t SET v = 'changed' WHERE id = 2;
		CREATE FUNCTION audit() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO audit VALUES (TG_OP); RETURN NULL; END';
		CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION audit()`)
	for _, dryRun := range []bool{true, false} {
		res := d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true, DryRun: dryRun})
		if got := fmt.Sprint(res.Others); got != "[{public.audit 3 0 0} {public.c 0 0 20} {public.g 0 0 20} {public.n 0 2 0}]" || res.Deleted.Rows != 2 || res.Overwritten.Rows != 1 {
			t.Errorf("dry run %v: %s, %+v", dryRun, got, res)
		}
	}
	d.wantEqual(path, "t")
	if got := d.Query("SELECT (SELECT count(*) FROM c), (SELECT count(t) FROM n), (SELECT count(*) FROM audit)"); got != "20|2|3" {
		t.Errorf("the other tables have %s", got)
	}
	d.Exec("TRUNCATE audit")
	res := d.restore(restore.Options{Path: d.WriteFile("[]"), Table: d.Name("t"), DeleteExtra: true})
	if got := fmt.Sprint(res.Others); got != "[{public.audit 2 0 0} {public.c 0 0 20} {public.g 0 0 20} {public.n 0 2 0}]" || res.Deleted.Rows != 2 {
		t.Errorf("a file without rows: %s, %+v", got, res)
	}
}

// TestGeneratedColumnsThatDiffer checks restores of a file whose generated column had another expression than the table's
// column. If both expressions have the same results, the restore succeeds.
func TestGeneratedColumnsThatDiffer(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec("CREATE TABLE t (id int PRIMARY KEY, n int GENERATED ALWAYS AS (id * 2) STORED); INSERT INTO t SELECT generate_series(1, 10)")
	path := d.Export("t")
	d.Exec("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, n int GENERATED ALWAYS AS (CASE WHEN id > 5 THEN id * 3 ELSE id * 2 END) STORED)")
	d.wantRefused(restore.Options{Path: path}, "generated columns", "changed 5 rows of 10", "key 6")
	if res := d.restore(restore.Options{Path: path, OnConflict: restore.Skip}); res.Changed.Rows != 5 || res.Inserted.Rows != 10 {
		t.Errorf("%+v", res)
	}
	d.Exec("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, n int GENERATED ALWAYS AS ((id + id)) STORED)")
	d.restore(restore.Options{Path: path})
	d.wantEqual(path, "t")
}

// TestTablesThatNoSourceFollows checks restores into tables that no source can follow: an unlogged table, a table from which
// another table inherits, and a table without a key.
func TestTablesThatNoSourceFollows(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.CreateVotes(50)
	path := d.Export("votes")
	for _, change := range []string{
		"TRUNCATE votes; ALTER TABLE votes SET UNLOGGED",
		"TRUNCATE votes; CREATE TABLE heir () INHERITS (votes); INSERT INTO heir (vote_id, comment) VALUES (3, 'not of the table itself')",
		"DROP TABLE heir; TRUNCATE votes; ALTER TABLE votes DROP CONSTRAINT votes_pkey",
	} {
		d.Exec(change)
		d.restore(restore.Options{Path: path})
		d.wantEqual(path, "votes")
		if strings.Contains(change, "DROP CONSTRAINT") {
			d.wantRefused(restore.Options{Path: path, OnConflict: restore.Overwrite}, "table public.votes has rows and no primary key", "ADD PRIMARY KEY")
			continue
		}
		d.Exec("DELETE FROM ONLY votes WHERE vote_id < 10; UPDATE ONLY votes SET comment = 'changed' WHERE vote_id = 20")
		d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true})
		d.wantEqual(path, "votes")
	}
	d.Exec("TRUNCATE votes")
	d.restore(restore.Options{Path: d.WriteFile(`[{"vote_id":1},{"vote_id":1}]`)})
	if got := d.Query("SELECT count(*) FROM votes"); got != "2" {
		t.Errorf("the table has %s rows", got)
	}
	if _, err := verify.Verify(t.Context(), verify.Options{Path: d.WriteFile(`[]`), Database: d.Config}); err == nil || !strings.Contains(err.Error(), "no primary key") {
		t.Errorf("verify says %v", err)
	}
	if got := d.Query("SELECT count(*) FROM pg_class WHERE relname LIKE 'capture_restore%'"); got != "0" {
		t.Errorf("%s temporary tables are left", got)
	}
}

// TestRulesAndDifferingIdentity checks restores into a table with rules. UPDATE cannot set the identity column. If its value
// in the table differs from the file, a restore would have to delete the row and insert it again, and a rule could rewrite
// these statements. So the restore must refuse to overwrite such rows.
func TestRulesAndDifferingIdentity(t *testing.T) {
	t.Parallel()
	d := newDB(t)
	d.Exec("CREATE TABLE t (id int PRIMARY KEY, n int GENERATED ALWAYS AS IDENTITY, v text); INSERT INTO t (id, v) SELECT i, 'v' || i FROM generate_series(1, 10) i; CREATE TABLE log (id int, v text)")
	path := d.Export("t")
	for _, rule := range []string{
		"ON UPDATE TO t DO ALSO INSERT INTO log VALUES (NEW.id, 'updated')",
		"ON INSERT TO t DO ALSO INSERT INTO log VALUES (NEW.id, 'inserted')",
		"ON DELETE TO t DO INSTEAD NOTHING",
	} {
		d.Exec("TRUNCATE t RESTART IDENTITY; INSERT INTO t (id, v) SELECT i, 'v' || i FROM generate_series(10, 1, -1) i; CREATE OR REPLACE RULE odd AS " + rule)
		before := d.Query("SELECT * FROM t ORDER BY id")
		o := restore.Options{Path: path, OnConflict: restore.Overwrite, DeleteExtra: true}
		for _, o.DryRun = range []bool{true, false} {
			d.wantRefused(o, `column "n" is GENERATED ALWAYS AS IDENTITY and differs, and table public.t has rules`, "--disable-triggers")
		}
		if after := d.Query("SELECT * FROM t ORDER BY id"); after != before {
			t.Errorf("%s: it left the rows\n%s", rule, after)
		}
		o.DisableTriggers = true // as the hint of the error recommends
		d.restore(o)
		d.wantEqual(path, "t")
		d.Exec("DROP RULE odd ON t")
	}
	if n := d.Query("SELECT count(*) FROM log"); n != "0" {
		t.Errorf("the rules logged %s rows", n)
	}

	// Rows that already have the right identity value need only an UPDATE, so the restore succeeds.
	d.Exec("UPDATE t SET v = 'changed'; CREATE RULE odd AS ON UPDATE TO t DO ALSO INSERT INTO log VALUES (NEW.id, 'updated')")
	if res := d.restore(restore.Options{Path: path, OnConflict: restore.Overwrite}); res.Overwritten.Rows != 10 {
		t.Errorf("%+v", res)
	}
	d.wantEqual(path, "t")
}

// TestExchangedValuesThatAreFollowed checks restores of rows that exchange unique values. Rows of another table refer to
// these values by a foreign key with ON UPDATE. A restore must not change the referring rows in a way in which no UPDATE
// would change them. So it cannot exchange the values, and must be refused.
func TestExchangedValuesThatAreFollowed(t *testing.T) {
	if testing.Short() {
		t.Skip("restores many tables")
	}
	t.Parallel()
	d := newDB(t)
	for _, action := range []string{"CASCADE", "SET NULL", "SET DEFAULT"} {
		for _, other := range []string{"", "CREATE TABLE c (t int REFERENCES t ON DELETE CASCADE); INSERT INTO c VALUES (1), (2);"} {
			d.Exec("CREATE TABLE t (id int PRIMARY KEY, pos int UNIQUE); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3)")
			path := d.Export("t")
			d.Exec(other + "CREATE TABLE follower (id int, pos int REFERENCES t (pos) ON UPDATE " + action + ")")
			exchange := "UPDATE t SET pos = -pos WHERE id < 3; UPDATE t SET pos = 3 + pos WHERE id < 3;"
			d.Exec(exchange + "INSERT INTO follower VALUES (1, 1), (2, 2), (3, NULL)")
			o := restore.Options{Path: path, OnConflict: restore.Overwrite}
			for _, o.DryRun = range []bool{true, false} {
				d.wantRefused(o, "rows of table public.follower refer to rows of table public.t by columns that would change", `foreign key "follower_pos_fkey", with ON UPDATE `+action, "--disable-triggers")
			}
			o.DisableTriggers = true
			d.restore(o)
			d.wantEqual(path, "t")
			if got := d.Query("SELECT string_agg(id || ':' || coalesce(pos::text, '-'), ' ' ORDER BY id) FROM follower"); got != "1:1 2:2 3:-" {
				t.Errorf("ON UPDATE %s: the other table has %s", action, got)
			}
			// If the table follower has no rows, the values can be exchanged.
			d.Exec("TRUNCATE follower;" + exchange)
			o.DisableTriggers = false
			d.restore(o)
			d.wantEqual(path, "t")
			// The restore updates a value that is not exchanged, and the foreign key acts.
			if action == "CASCADE" {
				d.Exec("UPDATE t SET pos = 30 WHERE id = 3; INSERT INTO follower VALUES (4, 30)")
				d.restore(o)
				d.wantEqual(path, "t")
				if got := d.Query("SELECT pos FROM follower WHERE id = 4"); got != "3" {
					t.Errorf("the row that follows has %s", got)
				}
			}
			d.Exec("DROP TABLE IF EXISTS c; DROP TABLE follower, t")
		}
	}
}

// TestSkippedRowsThatChange checks that the result of a restore with --on-conflict skip counts the skipped rows that foreign keys
// and triggers have deleted or changed.
func TestSkippedRowsThatChange(t *testing.T) {
	t.Parallel()
	const tree = "CREATE TABLE t (id int PRIMARY KEY, up int); INSERT INTO t VALUES (1, NULL), (2, NULL), (3, NULL);"
	const change = "DELETE FROM t WHERE id = 1; INSERT INTO t VALUES (8), (9); UPDATE t SET up = 9 WHERE id = 2;"
	const function = "CREATE FUNCTION act() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
	const trigger = "; RETURN NULL; END $$; CREATE TRIGGER acts AFTER INSERT ON t FOR EACH STATEMENT EXECUTE FUNCTION act()"
	for name, c := range map[string]struct {
		sql              string
		leftOut, changed string
		by               string
	}{
		"ON DELETE CASCADE":  {"ALTER TABLE t ADD CONSTRAINT own FOREIGN KEY (up) REFERENCES t ON DELETE CASCADE", "{1 [2]}", "{0 []}", `foreign key "own" of table public.t`},
		"ON DELETE SET NULL": {"ALTER TABLE t ADD CONSTRAINT own FOREIGN KEY (up) REFERENCES t ON DELETE SET NULL", "{0 []}", "{1 [2]}", `foreign key "own" of table public.t`},
		"foreign keys by way of another table": {"UPDATE t SET up = NULL; CREATE TABLE c (id int PRIMARY KEY, t int CONSTRAINT other REFERENCES t ON DELETE CASCADE); INSERT INTO c VALUES (9, 9); UPDATE t SET up = 9 WHERE id > 1 AND id < 4; ALTER TABLE t ADD CONSTRAINT own FOREIGN KEY (up) REFERENCES c ON DELETE SET NULL",
			"{0 []}", "{2 [2 3]}", `foreign key "own" of table public.t`},
		"trigger that deletes":        {function + "DELETE FROM t WHERE id = 3" + trigger, "{1 [3]}", "{0 []}", `trigger "acts"`},
		"trigger that changes":        {function + "UPDATE t SET up = 7 WHERE id = 3" + trigger, "{0 []}", "{1 [3]}", `trigger "acts"`},
		"trigger that changes no row": {function + "UPDATE t SET up = up" + trigger, "{0 []}", "{0 []}", ""},
		"partition": {"ALTER TABLE t RENAME TO old; CREATE TABLE t (id int PRIMARY KEY, up int) PARTITION BY RANGE (id); CREATE TABLE t0 PARTITION OF t DEFAULT; INSERT INTO t TABLE old; ALTER TABLE t0 ADD CONSTRAINT own FOREIGN KEY (up) REFERENCES t0 ON DELETE CASCADE",
			"{1 [2]}", "{0 []}", `foreign key "own" of table public.t0`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			d := newDB(t)
			d.Exec(tree)
			o := restore.Options{Path: d.Export("t"), OnConflict: restore.Skip, DeleteExtra: true}
			d.Exec(change + c.sql)
			for _, o.DryRun = range []bool{true, false} {
				r := d.restore(o)
				if fmt.Sprint(r.Inserted, r.Skipped, r.Deleted) != "{1 [1]} {2 [2 3]} {2 [8 9]}" {
					t.Errorf("%+v", r)
				}
				if fmt.Sprint(r.LeftOut) != c.leftOut || fmt.Sprint(r.Changed) != c.changed || !strings.HasPrefix(r.By, c.by) || (r.By == "") != (c.by == "") {
					t.Errorf("left out %v, changed %v, by %q; want %v, %v, %q", r.LeftOut, r.Changed, r.By, c.leftOut, c.changed, c.by)
				}
			}
		})
	}
}
