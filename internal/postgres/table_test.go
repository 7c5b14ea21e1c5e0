package postgres

import (
	"bytes"
	"encoding/binary"
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

func TestLoadTableFindsNamesAsWrittenFirst(t *testing.T) {
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
		if !errors.As(err, &p) || !p.TableMissing() || !strings.Contains(p.Hint, hint) {
			t.Errorf("%s: %v, want a problem that names %s", in, err, hint)
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

func TestTypesAreResolved(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, `CREATE EXTENSION hstore`, `CREATE EXTENSION citext`,
		`CREATE DOMAIN positive AS int CHECK (value > 0)`, `CREATE DOMAIN pair AS positive[]`,
		`CREATE TYPE mood AS ENUM ('sad', 'ok')`,
		`CREATE TYPE inner_t AS (h hstore, m mood)`, `CREATE TYPE outer_t AS (a positive, "B c" inner_t[], x text)`,
		`CREATE TABLE t (id int8 PRIMARY KEY, d positive, p pair, b box[], v int2vector, o outer_t, h hstore, ha hstore[],
			ci citext, m mood, bp char(3), bit bit(3), tz timestamptz[][], n name, c "char")`)
	table := loadTable(t, conn, "t")
	kind := map[string]rowjson.Kind{}
	for _, c := range table.Columns {
		kind[c.Name] = c.Type.Kind
	}
	for name, want := range map[string]rowjson.Kind{
		"id": rowjson.Number, "d": rowjson.Number, "p": rowjson.Array, "b": rowjson.Array, "v": rowjson.Vector,
		"o": rowjson.Composite, "h": rowjson.Cast, "ha": rowjson.Array, "ci": rowjson.Text, "m": rowjson.Text,
		"bp": rowjson.Text, "bit": rowjson.Text, "tz": rowjson.Array, "n": rowjson.Text, "c": rowjson.Text,
	} {
		if kind[name] != want {
			t.Errorf("%s is of kind %d, want %d", name, kind[name], want)
		}
	}
	col := func(name string) *rowjson.Type {
		for i := range table.Columns {
			if table.Columns[i].Name == name {
				return &table.Columns[i].Type
			}
		}
		t.Fatalf("no column %s", name)
		return nil
	}
	if b := col("b"); b.Delim != ';' || b.Elem.Kind != rowjson.Text {
		t.Errorf("box[] is %+v", b)
	}
	if p := col("p"); p.Elem.Kind != rowjson.Number || p.Elem.OID != 23 {
		t.Errorf("pair is an array of %+v", p.Elem)
	}
	o := col("o")
	if len(o.Fields) != 3 || o.Fields[1].Name != "B c" || o.Fields[1].Type.Elem.Fields[0].Type.Kind != rowjson.Cast || !o.ByServer() {
		t.Errorf("outer_t is %+v", o)
	}
}

// TestCopyQueryGivesOutputText compares each field of the copy with what the server sends for the bare column in text
// framing, which is the type's output function's.
func TestCopyQueryGivesOutputText(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, `CREATE EXTENSION hstore`, `CREATE EXTENSION citext`,
		`CREATE TYPE mood AS ENUM ('sad', 'ok "quoted"')`, `CREATE DOMAIN dmood AS mood`, `CREATE DOMAIN dbit AS bit(5)`,
		`CREATE DOMAIN dchar AS char(4)`, `CREATE DOMAIN drange AS int4range`, `CREATE TYPE comp AS (a int, b text)`,
		`CREATE DOMAIN dcomp AS comp`, `CREATE DOMAIN darr AS text[]`,
		`CREATE TABLE t (id int PRIMARY KEY, b bool, i inet, bp char(5), c "char", n name, dm dmood, db dbit, dc dchar,
			dr drange, co comp, dco dcomp, da darr, j json, jb jsonb, x xml, by bytea, ts timestamptz, iv interval,
			f float8, nu numeric, m money, ci citext, ra dmood[], vc varchar, nul mood, v oidvector, rc regclass)`,
		`INSERT INTO t VALUES (1, true, '10.0.0.1', 'ab', 'x', 'nm', 'ok "quoted"', B'10110', 'cd', '[1,5)', (1,'x y'), (2,NULL),
			'{a,"b c",NULL}', '{"a" :  1,"a":2}', '{"b": 1}', '<a>é</a>', '\x00ff', '2024-05-05 12:00:00.5+05:30', '1 mon -2 days',
			1e-320, 'NaN', 12.5, 'CiT', '{sad}', 'v', NULL, '1 2', 'pg_class'),
			(2, NULL, '10.0.0.0/8', '', '', '', 'sad', B'00000', '', 'empty', NULL, (NULL,NULL),
			'{}', 'null', '[]', '', '', 'infinity', '0', '-0', 'NaN', -1, '', '{}', '', 'sad', '', NULL)`)
	table := loadTable(t, conn, "t")
	var copied bytes.Buffer
	if _, err := conn.PgConn().CopyTo(testContext(t), &copied, table.CopyQuery("")); err != nil {
		t.Fatal(err)
	}
	results, err := conn.PgConn().Exec(testContext(t), "SELECT * FROM t").ReadAll()
	if err != nil {
		t.Fatal(err)
	}
	data := copied.Bytes()[19:]
	for _, row := range results[0].Rows {
		if n := binary.BigEndian.Uint16(data); int(n) != len(row) {
			t.Fatalf("row has %d fields, want %d", n, len(row))
		}
		data = data[2:]
		for i, want := range row {
			var got []byte
			n := int32(binary.BigEndian.Uint32(data))
			if data = data[4:]; n >= 0 {
				got, data = data[:n], data[n:]
			}
			if !bytes.Equal(got, want) || (got == nil) != (want == nil) {
				t.Errorf("column %s is %q, want %q", table.Columns[i].Name, got, want)
			}
		}
	}
}

func TestFingerprintChangesWithWhatChangesRows(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, votesSQL, `CREATE TYPE mood AS ENUM ('sad', 'ok')`, `CREATE TYPE comp AS (a int, b mood)`,
		`ALTER TABLE votes ADD c comp, ADD extra text`, `CREATE TABLE other (id int PRIMARY KEY)`)
	name := Name{Table: "votes"}
	last := loadTable(t, conn, "votes").Fingerprint
	step := func(changes bool, statements ...string) {
		t.Helper()
		run(t, conn, statements...)
		got, err := TableFingerprint(testContext(t), conn, name)
		if err != nil {
			t.Fatalf("%s: %v", statements, err)
		}
		if (got != last) != changes {
			t.Errorf("after %s the fingerprint changed: %v", strings.Join(statements, "; "), got != last)
		}
		last = got
	}
	step(false, `INSERT INTO votes (comment) VALUES ('x')`, `UPDATE votes SET comment = 'y'`, `DELETE FROM votes`)
	step(false, `VACUUM (FULL, FREEZE) votes`, `CLUSTER votes USING votes_pkey`, `TRUNCATE votes`, `REINDEX TABLE votes`, `ANALYZE votes`)
	step(false, `VACUUM (FREEZE) pg_attribute`, `VACUUM (FULL, FREEZE) pg_attribute`)
	step(false, `CREATE INDEX ON votes (comment)`, `GRANT SELECT ON votes TO public`, `COMMENT ON TABLE votes IS 'x'`)
	step(false, `CREATE PUBLICATION p FOR TABLE votes`)
	step(true, `ALTER TABLE votes ADD late int DEFAULT 5`)
	step(true, `ALTER TABLE votes ALTER late TYPE int USING late + 1`)
	step(false, `VACUUM FULL votes`)
	step(true, `ALTER TABLE votes RENAME late TO later`)
	step(true, `ALTER TABLE votes DROP later`)
	step(true, `ALTER TABLE votes ALTER comment TYPE varchar(1000)`)
	step(true, `ALTER TYPE mood RENAME VALUE 'sad' TO 'unhappy'`)
	step(true, `ALTER TYPE comp RENAME ATTRIBUTE a TO z`)
	step(true, `ALTER TYPE comp ADD ATTRIBUTE n int`)
	step(false, `SET lc_monetary = 'C.UTF-8'`)
	step(true, `ALTER TABLE votes ADD price money DEFAULT 1`)
	step(true, `SET lc_monetary = 'C'`)
	step(true, `ALTER TABLE votes DROP price`)
	step(false, `SET lc_monetary = 'C.UTF-8'`)
	step(true, `CREATE FUNCTION comp_json(comp) RETURNS json IMMUTABLE LANGUAGE sql AS $$ SELECT json_build_array(1) $$`, `CREATE CAST (comp AS json) WITH FUNCTION comp_json(comp)`)
	step(true, `CREATE OR REPLACE FUNCTION comp_json(comp) RETURNS json IMMUTABLE LANGUAGE sql AS $$ SELECT json_build_array(2) $$`)
	step(false, `VACUUM (FREEZE) pg_proc`)
	step(true, `CREATE EXTENSION hstore VERSION '1.6'`, `ALTER TABLE votes ADD h hstore`)
	step(true, `ALTER EXTENSION hstore UPDATE`)
	step(true, `ALTER TABLE votes REPLICA IDENTITY FULL`)
	step(true, `ALTER TABLE votes DROP CONSTRAINT votes_pkey`, `ALTER TABLE votes ALTER extra SET NOT NULL`, `ALTER TABLE votes ADD PRIMARY KEY (vote_id, extra)`)
	step(true, `BEGIN; ALTER TABLE votes RENAME TO votes_old; CREATE TABLE votes (LIKE votes_old INCLUDING ALL); COMMIT`)
	run(t, conn, `DROP TABLE votes`)
	var p *Problem
	if _, err := TableFingerprint(testContext(t), conn, name); !errors.As(err, &p) || !p.TableMissing() {
		t.Errorf("after DROP TABLE: %v", err)
	}
}

func TestFingerprintOfPartitions(t *testing.T) {
	t.Parallel()
	conn, _ := database(t, `CREATE TABLE p (id int PRIMARY KEY, x text) PARTITION BY RANGE (id)`,
		`CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)`, `CREATE TABLE p2 (id int PRIMARY KEY, x text)`)
	table := loadTable(t, conn, "p")
	if !table.Partitioned || strings.Contains(table.CopyQuery(""), "ONLY") {
		t.Errorf("not read as partitioned: %s", table.CopyQuery(""))
	}
	last := table.Fingerprint
	for _, s := range []string{`ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)`, `TRUNCATE p1`, `ALTER TABLE p DETACH PARTITION p1`,
		`BEGIN; ALTER TABLE p DETACH PARTITION p2; ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20); COMMIT`,
		`CREATE TABLE p3 PARTITION OF p DEFAULT PARTITION BY RANGE (id)`, `CREATE TABLE p4 PARTITION OF p3 DEFAULT`, `DROP TABLE p4`} {
		run(t, conn, s)
		now := loadTable(t, conn, "p").Fingerprint
		if now == last {
			t.Errorf("the fingerprint is the same after %s", s)
		}
		last = now
	}
}

func TestLoadTableRefusesWhatTheUserCannotReadWhole(t *testing.T) {
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
	// Rights on columns, be it all of them, do not allow to lock the table.
	for _, column := range []string{"id", "x"} {
		run(t, conn, `GRANT SELECT (`+column+`) ON hidden.t TO capture_test_reader`)
		refused("not the table as a whole", `GRANT SELECT ON "hidden"."t" TO "capture_test_reader"`)
	}
	run(t, conn, `GRANT SELECT ON hidden.t TO capture_test_reader`)
	refused()
	run(t, conn, `ALTER TABLE hidden.t ENABLE ROW LEVEL SECURITY`)
	refused("BYPASSRLS")
}
