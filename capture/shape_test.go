package capture

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"capture/internal/filetest"
	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// follows waits until the file equals the table, without a forced flush.
func (d *daemon) follows(conn *pgx.Conn, table, order string) {
	d.t.Helper()
	eventually(d.t, "file equals "+table, func() error {
		b, err := os.ReadFile(d.path)
		if err != nil {
			return err
		}
		want := oracle(d.t, conn, table, order)
		got, err := filetest.Rows(b)
		if err != nil {
			d.t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			return fmt.Errorf("file:\n%.1500s\ntable:\n%.1500s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		return nil
	})
}

// TestStreams runs what applications do to their tables, and compares file and table after each step.
func TestStreams(t *testing.T) {
	if testing.Short() {
		t.Skip("streams many transactions")
	}
	const long = "(SELECT string_agg(md5(i::text || $$%s$$), '') FROM generate_series(1, 400) i)"
	longText := func(seed string) string { return fmt.Sprintf(long, seed) }
	cases := []struct {
		name  string
		setup []string // statements before capture starts; they create table t with key id
		run   []string // transactions and single statements while capture follows
	}{
		{"toast untouched", []string{
			"CREATE TABLE t (id int PRIMARY KEY, n int, big text, big2 text)",
			"INSERT INTO t VALUES (1, 1, " + longText("a") + ", " + longText("b") + "), (2, 1, " + longText("c") + ", NULL)",
		}, []string{
			"UPDATE t SET n = 2",
			"UPDATE t SET id = id + 10, n = 3",
			"BEGIN; INSERT INTO t VALUES (5, 1, " + longText("d") + ", " + longText("e") + "); UPDATE t SET n = 7 WHERE id = 5; UPDATE t SET id = 6 WHERE id = 5; UPDATE t SET big2 = 'short' WHERE id = 6; COMMIT",
			"UPDATE t SET big = " + longText("f") + " WHERE id = 6",
			"UPDATE t SET n = 9 WHERE id = 6",
		}},
		{"toast untouched, identity full", []string{
			"CREATE TABLE t (id int PRIMARY KEY, n int, big text)", "ALTER TABLE t REPLICA IDENTITY FULL",
			"INSERT INTO t VALUES (1, 1, " + longText("a") + "), (2, 1, NULL)",
		}, []string{"UPDATE t SET n = 2", "UPDATE t SET id = id + 10", "DELETE FROM t WHERE id = 11"}},
		{"long key", []string{
			"CREATE TABLE t (id text PRIMARY KEY, n int)", "ALTER TABLE t ALTER id SET STORAGE EXTERNAL",
			"INSERT INTO t VALUES (repeat('k', 2200) || 1, 1), (repeat('k', 2300) || 2, 1)",
		}, []string{"UPDATE t SET n = 2", "UPDATE t SET id = 'x' || id WHERE id LIKE '%2'", "DELETE FROM t WHERE id LIKE 'k%'"}},
		{"identity index", []string{
			"CREATE TABLE t (pk int PRIMARY KEY, id int NOT NULL UNIQUE, n int)", "ALTER TABLE t REPLICA IDENTITY USING INDEX t_id_key",
			"INSERT INTO t SELECT i, -i, i FROM generate_series(1, 20) i",
		}, []string{"UPDATE t SET n = 0", "UPDATE t SET id = id - 100 WHERE pk < 5", "UPDATE t SET pk = pk + 100", "DELETE FROM t WHERE pk % 2 = 0"}},
		{"keys shifted by one, deferrable", []string{
			"CREATE TABLE t (id int PRIMARY KEY DEFERRABLE INITIALLY DEFERRED, n int)", "ALTER TABLE t REPLICA IDENTITY FULL",
			"INSERT INTO t SELECT i, i FROM generate_series(1, 50) i",
		}, []string{
			"UPDATE t SET id = id + 1", "UPDATE t SET id = id - 1",
			"BEGIN; UPDATE t SET id = 51 - id; COMMIT",
			"BEGIN; INSERT INTO t VALUES (7, 777); DELETE FROM t WHERE id = 7 AND n <> 777; COMMIT",
		}},
		{"one key, many changes", []string{"CREATE TABLE t (id int PRIMARY KEY, n int)"}, []string{
			"BEGIN; INSERT INTO t VALUES (1, 1); UPDATE t SET n = 2; DELETE FROM t; INSERT INTO t VALUES (1, 3); COMMIT",
			"BEGIN; UPDATE t SET n = 4; SAVEPOINT s; UPDATE t SET n = 5; DELETE FROM t; ROLLBACK TO s; INSERT INTO t VALUES (2, 1); COMMIT",
			"BEGIN; UPDATE t SET id = 3 WHERE id = 1; UPDATE t SET id = 1 WHERE id = 2; UPDATE t SET id = 2 WHERE id = 3; COMMIT",
			"BEGIN; DELETE FROM t; ROLLBACK",
		}},
		{"savepoint in a large transaction", []string{"CREATE TABLE t (id int PRIMARY KEY, s text)"}, []string{
			"BEGIN; INSERT INTO t SELECT i, repeat('x', 100) FROM generate_series(1, 505) i; SAVEPOINT a; INSERT INTO t SELECT i, repeat('y', 1000) FROM generate_series(1000, 9000) i; ROLLBACK TO a; INSERT INTO t VALUES (506, 'z'); COMMIT",
			"BEGIN; INSERT INTO t SELECT i, repeat('x', 50) FROM generate_series(10000, 30000) i; UPDATE t SET s = 'u' WHERE id % 7 = 0; DELETE FROM t WHERE id % 5 = 0; COMMIT",
			"UPDATE t SET s = s || s",
		}},
		{"truncate", []string{
			"CREATE TABLE t (id serial PRIMARY KEY, n int)", "CREATE TABLE u (id int PRIMARY KEY REFERENCES t)", "CREATE TABLE v (id int PRIMARY KEY)",
			"INSERT INTO t (n) SELECT generate_series(1, 100)",
		}, []string{
			"TRUNCATE t CASCADE", "INSERT INTO t (n) SELECT 1", "BEGIN; INSERT INTO t (n) SELECT generate_series(1, 10); TRUNCATE v, t, u RESTART IDENTITY; INSERT INTO t (n) VALUES (7); COMMIT",
			"BEGIN; TRUNCATE t CASCADE; ROLLBACK",
		}},
		{"copy, upsert, two phases, messages, origin", []string{"CREATE TABLE t (id int PRIMARY KEY, n int)", "CREATE TABLE other (id int PRIMARY KEY)"}, []string{
			"INSERT INTO t SELECT i, i FROM generate_series(1, 10) i",
			"INSERT INTO t VALUES (3, 30), (11, 1) ON CONFLICT (id) DO UPDATE SET n = excluded.n + 1",
			"INSERT INTO t VALUES (3, 31) ON CONFLICT DO NOTHING",
			"SELECT pg_logical_emit_message(true, 'capture', 'hello'), pg_logical_emit_message(false, 'capture', 'hello')",
			"BEGIN; INSERT INTO t VALUES (20, 1); INSERT INTO other VALUES (1); PREPARE TRANSACTION 'p1'",
			"COMMIT PREPARED 'p1'",
			"BEGIN; INSERT INTO t VALUES (21, 1); PREPARE TRANSACTION 'p2'", "ROLLBACK PREPARED 'p2'",
			"SELECT pg_replication_origin_create('elsewhere')",
			"SELECT pg_replication_origin_session_setup('elsewhere'); INSERT INTO t VALUES (22, 1); SELECT pg_replication_origin_session_reset()",
			"SELECT pg_replication_origin_drop('elsewhere')",
		}},
		{"generated columns", []string{
			`CREATE TABLE t (id int PRIMARY KEY, n numeric, s text, "twice the n" numeric(12,2) GENERATED ALWAYS AS (n * 2) STORED, tail text GENERATED ALWAYS AS (upper(right(s, 5))) STORED)`,
			"INSERT INTO t (id, n, s) VALUES (1, 1.5, 'abc'), (2, NULL, " + longText("g") + ")",
		}, []string{"INSERT INTO t (id, n, s) VALUES (3, 1.005, E'x\\ny\"')", "UPDATE t SET n = 7", "UPDATE t SET id = 9 WHERE id = 2"}},
		{"large rows beside small", []string{"CREATE TABLE t (id int PRIMARY KEY, s text)"}, []string{
			"INSERT INTO t VALUES (1, (SELECT string_agg(md5(i::text), '') FROM generate_series(1, 9400) i))", "INSERT INTO t VALUES (2, 'a')", "INSERT INTO t VALUES (3, 'b')",
		}},
		{"odd names", []string{`CREATE TABLE t (id int, "K e""y" text, "` + strings.Repeat("ü", 31) + `x" int, "select" int, "nl` + "\n" + `" int, PRIMARY KEY ("K e""y", id))`}, []string{
			`INSERT INTO t VALUES (1, 'a', 1, 2, 3), (-1, 'a', 1, 2, 3), (0, 'B', 1, 2, 3), (0, '', NULL, NULL, NULL)`, `UPDATE t SET "K e""y" = 'c' WHERE id = 1`,
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := connect(t, url)
			order := `id`
			for _, sql := range c.setup {
				exec(t, conn, sql)
			}
			if c.name == "odd names" {
				order = `"K e""y" COLLATE "C", id`
			} else if c.name == "long key" {
				order = `id COLLATE "C"`
			}
			cfg := config(t, url)
			cfg.Table = postgres.Name{Table: "t"}
			d := start(t, cfg)
			d.ready()
			copies := strings.Count(d.log.String(), `"@message":"copied"`)
			d.flushAndCompare(conn, "t", order)
			for _, sql := range c.run {
				if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
				if t.Failed() {
					return
				}
				d.flushAndCompare(conn, "t", order)
			}
			if n := strings.Count(d.log.String(), `"@message":"copied"`); n != copies {
				t.Errorf("the table was copied %d times more; the stream should have been enough", n-copies)
			}
		})
	}
}

// TestShapes changes the table's definition while capture follows. The file equals the table within seconds, without a restart.
func TestShapes(t *testing.T) {
	if testing.Short() {
		t.Skip("compares many tables")
	}
	cases := []struct {
		name  string
		setup []string
		run   []string
	}{
		{"columns", []string{"CREATE TABLE t (id int PRIMARY KEY, a text, b int)", "INSERT INTO t SELECT i, 'a' || i, i FROM generate_series(1, 50) i"}, []string{
			"ALTER TABLE t ADD c int", "ALTER TABLE t ADD d text DEFAULT 'the default'", "INSERT INTO t VALUES (100, 'x', 1)",
			"ALTER TABLE t DROP b", "ALTER TABLE t RENAME a TO z", "ALTER TABLE t ALTER z TYPE varchar(20)", "ALTER TABLE t ALTER id TYPE bigint",
			"ALTER TABLE t ALTER c TYPE text USING 'c' || id", "BEGIN; ALTER TABLE t ADD e int DEFAULT 5; INSERT INTO t (id) VALUES (101); COMMIT",
			"UPDATE t SET z = 'filled' WHERE z IS NULL", "ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (z, id)", "UPDATE t SET z = z || 'b' WHERE z IS NOT NULL",
		}},
		{"enum", []string{"CREATE TYPE mood AS ENUM ('sad', 'ok')", "CREATE TABLE t (id int PRIMARY KEY, m mood, ms mood[])", "INSERT INTO t VALUES (1, 'sad', '{ok,sad}')"}, []string{
			"ALTER TYPE mood ADD VALUE 'happy'", "INSERT INTO t VALUES (2, 'happy', '{happy}')", "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
		}},
		{"composite", []string{"CREATE TYPE pair AS (x int, y text)", "CREATE TABLE t (id int PRIMARY KEY, p pair, ps pair[])", `INSERT INTO t VALUES (1, '(1,"a b")', '{"(2,c)","(,)"}')`}, []string{
			"UPDATE t SET p = ROW(5, 'new\"')", "ALTER TYPE pair RENAME ATTRIBUTE y TO why", "ALTER TYPE pair ADD ATTRIBUTE z date", "UPDATE t SET p = ROW(5, 'new', '2020-02-29')",
		}},
		{"dropped and created again", []string{"CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t VALUES (1, 'old')"}, []string{
			"DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY, other int)", "INSERT INTO t VALUES (7, 7)",
		}},
		{"swapped by rename", []string{"CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t VALUES (1, 'old')"}, []string{
			"CREATE TABLE t_new (id int PRIMARY KEY, a text, b int DEFAULT 3); INSERT INTO t_new VALUES (1, 'new'), (2, 'newer')",
			"BEGIN; ALTER TABLE t RENAME TO t_old; ALTER TABLE t_new RENAME TO t; COMMIT", "INSERT INTO t VALUES (3, 'after')", "INSERT INTO t_old VALUES (99, 'never')",
		}},
		{"rewritten", []string{"CREATE TABLE t (id int PRIMARY KEY, a text)", "INSERT INTO t SELECT i, 'a' FROM generate_series(1, 100) i"}, []string{
			"VACUUM FULL t", "INSERT INTO t VALUES (1000, 'b')", "CLUSTER t USING t_pkey", "UPDATE t SET a = 'c' WHERE id < 10",
		}},
		{"partitions", []string{
			"CREATE TABLE t (id int, day date, a text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day)",
			"CREATE TABLE t1 PARTITION OF t FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')", "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM ('2021-01-01') TO ('2022-01-01')",
			"INSERT INTO t SELECT i, '2020-06-01', 'a' FROM generate_series(1, 30) i",
		}, []string{
			"INSERT INTO t VALUES (100, '2021-03-03', 'second')", "UPDATE t SET day = '2021-06-01' WHERE id % 2 = 0", "INSERT INTO t1 VALUES (200, '2020-02-02', 'direct')",
			"CREATE TABLE t3 PARTITION OF t FOR VALUES FROM ('2022-01-01') TO ('2023-01-01')", "INSERT INTO t VALUES (300, '2022-03-03', 'third')",
			"CREATE TABLE loose (id int NOT NULL, day date NOT NULL, a text, PRIMARY KEY (id, day)); INSERT INTO loose VALUES (400, '2023-05-05', 'attached')",
			"ALTER TABLE t ATTACH PARTITION loose FOR VALUES FROM ('2023-01-01') TO ('2024-01-01')", "ALTER TABLE t DETACH PARTITION t1", "TRUNCATE t2", "DROP TABLE t3",
		}},
		{"moved to another schema and back", []string{"CREATE SCHEMA s", "CREATE TABLE t (id int PRIMARY KEY)", "INSERT INTO t VALUES (1)"}, []string{
			"ALTER TABLE t SET SCHEMA s; CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (5, 5)", "DROP TABLE t; ALTER TABLE s.t SET SCHEMA public",
		}},
		{"identity", []string{"CREATE TABLE t (id int PRIMARY KEY, u int NOT NULL UNIQUE)", "INSERT INTO t SELECT i, -i FROM generate_series(1, 10) i"}, []string{
			"ALTER TABLE t REPLICA IDENTITY FULL", "UPDATE t SET id = id + 100", "ALTER TABLE t REPLICA IDENTITY USING INDEX t_u_key", "UPDATE t SET u = u - 100", "DELETE FROM t WHERE id < 105",
		}},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := connect(t, url)
			for _, sql := range c.setup {
				exec(t, conn, sql)
			}
			cfg := config(t, url)
			cfg.Table = postgres.Name{Table: "t"}
			d := start(t, cfg)
			d.ready()
			for i, sql := range c.run {
				if _, err := conn.PgConn().Exec(t.Context(), sql).ReadAll(); err != nil {
					t.Fatalf("%s: %v", sql, err)
				}
				order := "id"
				switch {
				case c.name == "columns" && i >= 10:
					order = `z COLLATE "C", id`
				case c.name == "identity" && i >= 2:
					order = "u"
				}
				if i%2 == 0 { // the file must follow without a forced flush, too
					d.follows(conn, "t", order)
				}
				d.flushAndCompare(conn, "t", order) // with a forced flush
			}
		})
	}
}

// TestIdentityChangesUnderWrites: while rows are written, the table gets other replica identities. A new identity changes
// the table's key, or which old values the stream contains. capture treats this like any other change of the definition: no
// error is logged, and no forced write fails.
func TestIdentityChangesUnderWrites(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for regular checks")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 300)
	exec(t, conn, "ALTER TABLE votes ADD other int GENERATED ALWAYS AS IDENTITY NOT NULL; CREATE UNIQUE INDEX votes_other ON votes (other)", pgx.QueryExecModeSimpleProtocol)
	cfg := config(t, url)
	d := start(t, cfg)
	d.ready()
	stop := startLoad(t, url, 2)
	defer stop()
	for _, identity := range []string{"USING INDEX votes_other", "FULL", "USING INDEX votes_other", "DEFAULT", "USING INDEX votes_other"} {
		runUnderLoad(t, conn, "ALTER TABLE votes REPLICA IDENTITY "+identity)
		for range 5 {
			if _, err := d.Snapshot(t.Context()); err != nil {
				t.Errorf("%s: %v", identity, err)
			}
		}
	}
	stop()
	d.flushAndCompare(conn, "votes", "other")
	if log := d.log.String(); strings.Contains(log, `"@level":"error"`) {
		t.Errorf("an error was logged:\n%s", log)
	}
}

// TestSchemaPublication: a publication has the table only through its schema. While capture follows, the schema leaves the
// publication and returns, the table moves to another schema and back, and the table is unlogged and logged again. Each
// time, the stream lacks what is written in between, but the file must contain it.
func TestSchemaPublication(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for regular checks")
	}
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 20)
	if queryOne[int](t, conn, "SELECT current_setting('server_version_num')::int") < 150000 {
		t.Skip("this version has no publications of schemas")
	}
	exec(t, conn, "CREATE PUBLICATION all_here FOR TABLES IN SCHEMA public")
	d := start(t, config(t, url))
	d.ready()
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('published')")
	d.flushAndCompare(conn, "votes", "vote_id")
	exec(t, conn, `ALTER PUBLICATION all_here DROP TABLES IN SCHEMA public; INSERT INTO votes (user_query) VALUES ('not published');
		ALTER PUBLICATION all_here ADD TABLES IN SCHEMA public`, pgx.QueryExecModeSimpleProtocol)
	d.follows(conn, "votes", "vote_id")
	exec(t, conn, "CREATE SCHEMA hidden")
	for _, sql := range []string{
		"ALTER TABLE votes SET SCHEMA hidden; UPDATE hidden.votes SET comment = 'elsewhere'; ALTER TABLE hidden.votes SET SCHEMA public",
		"ALTER TABLE votes SET UNLOGGED; UPDATE votes SET comment = 'unlogged'; ALTER TABLE votes SET LOGGED",
	} {
		exec(t, conn, "BEGIN; "+sql+"; COMMIT", pgx.QueryExecModeSimpleProtocol)
		d.follows(conn, "votes", "vote_id")
	}
	exec(t, conn, "ALTER PUBLICATION all_here DROP TABLES IN SCHEMA public")
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('in none')")
	d.follows(conn, "votes", "vote_id") // through a publication that capture creates
	if n := queryOne[int](t, conn, "SELECT count(*) FROM pg_publication WHERE pubname = 'capture_votes'"); n != 1 {
		t.Errorf("%d publications of its own", n)
	}
}
