package postgres

import (
	"errors"
	"strings"
	"testing"

	"capture/snapshot/rowjson"
)

func TestLoadTableReadsVotes(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL)
	table := loadTable(t, conn, "Votes")
	if table.Name() != (Name{Schema: "public", Table: "votes"}) || table.Partitioned {
		t.Errorf("got %s, partitioned %v", table.Name(), table.Partitioned)
	}
	if len(table.Key) != 1 || table.Key[0] != 0 {
		t.Errorf("key is %v", table.Key)
	}
	want := []struct {
		name, typ string
		kind      rowjson.Kind
	}{
		{"vote_id", "integer", rowjson.Number}, {"user_query", "text", rowjson.Text}, {"bot_response", "text", rowjson.Text},
		{"evaluation_json", "jsonb", rowjson.JSON}, {"feedback_tags", "text[]", rowjson.Array}, {"comment", "text", rowjson.Text},
		{"citations", "jsonb", rowjson.JSON}, {"timestamp", "timestamp without time zone", rowjson.Timestamp},
	}
	for i, w := range want {
		c := table.Columns[i]
		if c.Name != w.name || c.TypeName != w.typ || c.Type.Kind != w.kind || !c.Published {
			t.Errorf("column %d is %+v, want %+v", i, c, w)
		}
	}
	if d := table.Columns[0].Default; d != "nextval('votes_vote_id_seq'::regclass)" || !table.Columns[0].NotNull {
		t.Errorf("vote_id has default %q, not null %v", d, table.Columns[0].NotNull)
	}
}

func TestLoadTableTriesNamesAsWrittenFirst(t *testing.T) {
	t.Parallel()
	conn, _ := database(t,
		`CREATE TABLE "Votes" (id int PRIMARY KEY)`, votesSQL,
		`CREATE SCHEMA "Odd.Schema"`, `CREATE TABLE "Odd.Schema"."a ""b""" (id int PRIMARY KEY)`,
		`CREATE SCHEMA app`, `CREATE TABLE app.only_there (id int PRIMARY KEY)`)
	for in, want := range map[string]string{
		"Votes": "public.Votes", "VOTES": "public.votes", "Public.votes": "public.votes",
		`"Odd.Schema"."a ""b"""`: `"Odd.Schema"."a ""b"""`, "APP.Only_There": "app.only_there",
	} {
		if got := loadTable(t, conn, in).Name().String(); got != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
	for in, hint := range map[string]string{"only_there": "app.only_there", `"VOTES"`: "public.votes", "app.nothing": ""} {
		n, _ := ParseName(in)
		_, err := LoadTable(testContext(t), conn, n)
		var p *Problem
		if !errors.As(err, &p) || !p.TableMissing() || !strings.Contains(p.Hint, hint) || !strings.Contains(p.Hint, "capture restore --create") {
			t.Errorf("%s: %v, want a problem that names %s and capture restore --create", in, err, hint)
		}
	}
}

func TestLoadTableRefuses(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL,
		`CREATE VIEW a_view AS SELECT * FROM votes`, `CREATE MATERIALIZED VIEW a_matview AS SELECT * FROM votes`,
		`CREATE EXTENSION file_fdw`, `CREATE SERVER files FOREIGN DATA WRAPPER file_fdw`,
		`CREATE FOREIGN TABLE a_foreign (id int) SERVER files OPTIONS (filename '/dev/null')`,
		`CREATE UNLOGGED TABLE an_unlogged (id int PRIMARY KEY)`, `CREATE TEMP TABLE a_temp (id int PRIMARY KEY)`,
		`CREATE TABLE a_parent (id int PRIMARY KEY)`, `CREATE TABLE a_child (PRIMARY KEY (id)) INHERITS (a_parent)`,
		`CREATE TABLE keyless (id int)`, `CREATE TYPE a_type AS (a int)`)
	for name, word := range map[string]string{
		"a_view": "is a view", "a_matview": "materialized view", "a_foreign": "foreign table", "an_unlogged": "SET LOGGED",
		"a_temp": "temporary", "a_parent": "inherit", "keyless": "ADD PRIMARY KEY", "a_type": "not a table",
		"votes_pkey": "an index", "votes_vote_id_seq": "a sequence", "pg_class": "system table",
	} {
		n, _ := ParseName(name)
		_, err := LoadTable(testContext(t), conn, n)
		var p *Problem
		if !errors.As(err, &p) || !strings.Contains(p.Error(), word) {
			t.Errorf("%s: %v, want a problem with %q", name, err, word)
		}
	}
	loadTable(t, conn, "a_child")
}

func TestKeyIsTheReplicaIdentityIndexOrThePrimaryKey(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, `CREATE TABLE t (gone int, a int, b text NOT NULL, c uuid NOT NULL, PRIMARY KEY (c, a))`,
		`ALTER TABLE t DROP COLUMN gone`, `CREATE UNIQUE INDEX other ON t (b) INCLUDE (a)`)
	check := func(want ...int) {
		t.Helper()
		if got := loadTable(t, conn, "t").Key; len(got) != len(want) || got[0] != want[0] {
			t.Errorf("key is %v, want %v", got, want)
		}
	}
	check(2, 0)
	run(t, conn, `ALTER TABLE t REPLICA IDENTITY FULL`)
	check(2, 0)
	run(t, conn, `ALTER TABLE t REPLICA IDENTITY USING INDEX other`)
	check(1)
	run(t, conn, `DROP INDEX other`)
	check(2, 0)
}

func TestLoadTableRefusesPartlyReadableTable(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, `CREATE SCHEMA hidden`, `CREATE TABLE hidden.t (id int PRIMARY KEY, x text)`,
		`DROP ROLE IF EXISTS capture_test_reader`, `CREATE ROLE capture_test_reader`)
	t.Cleanup(func() {
		run(t, conn, `RESET ROLE`, `DROP OWNED BY capture_test_reader`, `DROP ROLE capture_test_reader`)
	})
	refused := func(words ...string) {
		t.Helper()
		run(t, conn, `SET ROLE capture_test_reader`)
		defer run(t, conn, `RESET ROLE`)
		_, err := LoadTable(testContext(t), conn, Name{Schema: "hidden", Table: "t"})
		var p *Problem
		if len(words) == 0 && err != nil {
			t.Errorf("got %v", err)
		}
		for _, word := range words {
			if !errors.As(err, &p) || !strings.Contains(p.Error(), word) {
				t.Errorf("got %v, want a problem with %q", err, word)
			}
		}
	}
	refused("GRANT USAGE")
	run(t, conn, `GRANT USAGE ON SCHEMA hidden TO capture_test_reader`)
	refused("no right to read table", `GRANT SELECT ON "hidden"."t"`)
	// A user needs SELECT on the table to lock it. Privileges on columns are not enough, even on all columns.
	for _, column := range []string{"id", "x"} {
		run(t, conn, `GRANT SELECT (`+column+`) ON hidden.t TO capture_test_reader`)
		refused("not the table as a whole", `GRANT SELECT ON "hidden"."t" TO "capture_test_reader"`)
	}
	run(t, conn, `GRANT SELECT ON hidden.t TO capture_test_reader`)
	refused()
	run(t, conn, `ALTER TABLE hidden.t ENABLE ROW LEVEL SECURITY`)
	refused("BYPASSRLS")
}
