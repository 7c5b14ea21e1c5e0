package capture

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// oddSettings are settings of a database or role that change how values print or are read, or that end sessions.
var oddSettings = []struct {
	name, value string
	since       int // first major version that has the setting
}{
	{"DateStyle", "German, DMY", 0}, {"IntervalStyle", "sql_standard", 0}, {"TimeZone", "Asia/Kathmandu", 0}, {"bytea_output", "escape", 0},
	{"extra_float_digits", "-5", 0}, {"lc_monetary", "C", 0}, {"client_encoding", "LATIN1", 0}, {"xmloption", "document", 0}, {"xmlbinary", "hex", 0},
	{"array_nulls", "off", 0}, {"transform_null_equals", "on", 0}, {"standard_conforming_strings", "off", 0}, {"escape_string_warning", "off", 0},
	{"backslash_quote", "off", 0}, {"quote_all_identifiers", "on", 0}, {"search_path", `"odd ""schema""", "nowhere"`, 0},
	{"statement_timeout", "1", 0}, {"lock_timeout", "1", 0}, {"idle_in_transaction_session_timeout", "1", 0}, {"idle_session_timeout", "1", 14},
	{"transaction_timeout", "1", 17}, {"row_security", "off", 0}, {"default_transaction_read_only", "on", 0}, {"default_transaction_isolation", "serializable", 0},
	{"default_transaction_deferrable", "on", 0}, {"session_replication_role", "replica", 0}, {"synchronous_commit", "off", 0},
	{"client_min_messages", "debug1", 0}, {"logical_decoding_work_mem", "64kB", 0}, {"check_function_bodies", "off", 0},
	{"wal_sender_timeout", "1s", 0}, {"enable_seqscan", "off", 0}, {"plan_cache_mode", "force_generic_plan", 0}, {"work_mem", "64kB", 0},
}

// TestSettings: whatever the settings of a database or role are, the file is what row_to_json prints with the server's defaults
// and TimeZone UTC. This holds after the copy, after changes from the stream, and after another copy.
func TestSettings(t *testing.T) {
	for _, of := range []string{"database", "role"} {
		t.Run(of, func(t *testing.T) {
			t.Parallel()
			role := "odd_" + of
			t.Cleanup(func() { dropRole(t, role) }) // runs after the database is dropped; until then, the role owns objects in it
			db := pgserver.Database(t)
			conn := connect(t, db) // this session has the default settings, because it starts before they change
			u, err := url.Parse(db)
			if err != nil {
				t.Fatal(err)
			}
			database := pgx.Identifier{strings.TrimPrefix(u.Path, "/")}.Sanitize()
			exec(t, conn, "CREATE ROLE "+role+" SUPERUSER LOGIN")
			u.User = url.User(role)
			exec(t, conn, `CREATE SCHEMA "odd ""schema"""`)
			exec(t, conn, `CREATE EXTENSION hstore; SET search_path = "odd ""schema""", public; CREATE TYPE mood AS ENUM ('sad', 'OK now')`, pgx.QueryExecModeSimpleProtocol)
			exec(t, conn, `CREATE TYPE mixed AS (d date, i interval, b bytea, f float8, m mood, h hstore)`)
			exec(t, conn, `CREATE TABLE t (id timestamptz PRIMARY KEY, n int, d date, ts timestamp, tz timestamptz, i interval, ttz timetz, b bytea, f4 real, f8 float8,
				m money, x xml, name name, mo mood, r tstzrange, dr daterange, a text[], ai interval[], ad date[], af float8[], c mixed, cs mixed[], h hstore, hs hstore[],
				g interval GENERATED ALWAYS AS (i * 2) STORED, gd date GENERATED ALWAYS AS (d + 1) STORED, gf float8 GENERATED ALWAYS AS (f8 / 3) STORED,
				ga text[] GENERATED ALWAYS AS (a || NULL::text) STORED, gb bytea GENERATED ALWAYS AS (b || '\x5c') STORED, gm mood GENERATED ALWAYS AS (mo) STORED,
				gx xml GENERATED ALWAYS AS (x) STORED, gn text GENERATED ALWAYS AS (CASE WHEN a IS NULL THEN 'none' ELSE a[1] || E'\\' END) STORED)`)
			insert := `INSERT INTO t SELECT '2025-06-05 04:03:02.123+00'::timestamptz + k * interval '1 month', k, '2025-06-05', '2025-06-05 04:03', '2025-06-05 04:03+02',
				'-1 year 2 mons 3 days -04:05:06.7', '04:05+05:45', E'\\x00ff5c27', 0.1::real / 3, 0.1::float8 / 3, '-1234.5', 'just text', 'na"me', 'OK now',
				'[2025-06-05,2025-07-05)', '[2025-06-05,2025-07-05)', ARRAY[NULL, 'NULL', E'a\\b"'], ARRAY['1 day 2 hours', NULL]::interval[], '{2025-06-05}', ARRAY[0.1::float8 / 3],
				ROW('2025-06-05', '1 year', E'\\x00ff5c27', 0.1::float8 / 3, 'OK now', 'a=>NULL')::mixed, ARRAY[ROW('2025-06-05', '-1 day', E'\\x5c', 2.0::float8 / 3, NULL, '')]::mixed[],
				'k=>"v w"', ARRAY[NULL, 'x=>1']::hstore[] FROM generate_series(%d, %d) k`
			exec(t, conn, fmt.Sprintf(insert, -3, 3))
			for _, s := range oddSettings {
				switch v := major(conn); {
				case v < s.since,
					v >= 19 && s.name == "standard_conforming_strings",    // always on since 19
					v >= 19 && s.name == "escape_string_warning",          // removed in 19
					s.name == "quote_all_identifiers" && of == "database": // so that one of the two subtests runs without this setting
					continue
				}
				value := "'" + s.value + "'"
				if s.name == "search_path" {
					value = s.value
				}
				target := "DATABASE " + database
				if of == "role" {
					target = "ROLE " + role
				}
				exec(t, conn, fmt.Sprintf("ALTER %s SET %s = %s", target, s.name, value))
			}
			cfg := config(t, u.String())
			cfg.Table = postgres.Name{Table: "t"}
			d := start(t, cfg)
			d.ready()
			d.flushAndCompare(conn, "t", "id")
			for _, sql := range []string{
				fmt.Sprintf(insert, 10, 15), "UPDATE t SET n = n + 1", "UPDATE t SET id = id - interval '100 years', a = NULL, f8 = f8 * 7 WHERE n % 2 = 0",
				"UPDATE t SET i = i * 3, d = NULL, cs = cs || cs", "DELETE FROM t WHERE n < 0",
			} {
				exec(t, conn, sql)
				d.flushAndCompare(conn, "t", "id")
			}
			if n := strings.Count(d.log.String(), `"@message":"copied"`); n != 1 {
				t.Errorf("the table was copied %d times; the stream should have been enough", n)
			}
			exec(t, conn, "ALTER TABLE t ADD late timestamptz DEFAULT '2025-06-05 04:03:02.123+00'")
			d.flushAndCompare(conn, "t", "id")
			var b strings.Builder
			eventually(t, "exported", func() error {
				v, err := Export(t.Context(), cfg, nil)
				if postgres.SQLState(err) == "57014" { // the timeout of 1 ms ended the very statement that turns the timeout off
					return err
				}
				if err != nil {
					t.Fatal(err)
				}
				_, err = v.WriteTo(&b)
				return err
			})
			sameRows(t, "exported", b.String(), oracle(t, conn, "t", "id"))
		})
	}
}

func dropRole(t *testing.T, role string) {
	conn, err := pgx.Connect(context.Background(), pgserver.Shared(t).URL("postgres"))
	if err == nil {
		defer conn.Close(context.Background())
		_, err = conn.Exec(context.Background(), "DROP ROLE "+role)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestEncodings follows tables in databases of other encodings. capture replaces invalid bytes, and logs once that
// it does so.
func TestEncodings(t *testing.T) {
	if testing.Short() {
		t.Skip("follows databases of several encodings")
	}
	t.Parallel()
	const ddl = `CREATE TYPE comp AS (a text, "é" text[]); CREATE TABLE t (id text PRIMARY KEY, "ü" text, a text[], c comp, j json, n int,
		g text GENERATED ALWAYS AS (upper("ü")) STORED)`
	for encoding, text := range map[string]string{"LATIN1": `U&'gr\00fc\00df "\\'`, "SQL_ASCII": `E'bad \xe9"\\ \xff\xc3, good \xc3\xa9'`, "EUC_JP": `U&'\65e5\672c\8a9e'`} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			db := pgserver.Database(t, "TEMPLATE template0 LOCALE 'C' ENCODING '"+encoding+"'")
			conn := connect(t, db)
			client := "UTF8" // client encoding: UTF8, or the database's encoding if Postgres cannot convert it to UTF8
			if encoding == "SQL_ASCII" {
				client = encoding
			}
			exec(t, conn, "SET client_encoding = "+client)
			ddl := ddl
			if encoding == "EUC_JP" {
				ddl = strings.NewReplacer("é", "語", "ü", "日").Replace(ddl)
			}
			exec(t, conn, ddl, pgx.QueryExecModeSimpleProtocol)
			exec(t, conn, "INSERT INTO t SELECT 'k' || i, repeat(x, i * 400), ARRAY[x, NULL], ROW(x, ARRAY[x])::comp, '{\"a\": 1}', i FROM (SELECT "+text+" AS x) _, generate_series(1, 10) i")
			cfg := config(t, db)
			cfg.Table = postgres.Name{Table: "t"}
			d := start(t, cfg)
			d.ready()
			d.flushAndCompareExactly(conn, "copied")
			for _, sql := range []string{
				"INSERT INTO t SELECT id || " + text + ", repeat(" + text + ", n), a || a, c, to_json((" + text + ")::text), n FROM t",
				"UPDATE t SET n = n + 1", "UPDATE t SET id = 'x' || id WHERE n % 2 = 0", "UPDATE t SET a = NULL, c = NULL",
			} {
				exec(t, conn, sql)
				d.flushAndCompareExactly(conn, sql)
			}
			said := strings.Count(d.log.String(), "U+FFFD")
			if want := map[string]int{"SQL_ASCII": 1}[encoding]; said != want {
				t.Errorf("the replaced bytes were logged %d times, want %d", said, want)
			}
		})
	}
	t.Run("from the stream alone", func(t *testing.T) {
		t.Parallel()
		db := pgserver.Database(t, "TEMPLATE template0 LOCALE 'C' ENCODING 'SQL_ASCII'")
		conn := connect(t, db)
		exec(t, conn, "SET client_encoding = SQL_ASCII")
		exec(t, conn, votes)
		d := start(t, config(t, db))
		d.ready()
		exec(t, conn, `INSERT INTO votes (user_query, comment) VALUES (E'\xe9', E'\xc3\xa9')`)
		d.flushAndCompare(conn, "(SELECT vote_id, E'\\xef\\xbf\\xbd' AS user_query, bot_response, evaluation_json, feedback_tags, comment, citations, \"timestamp\" FROM votes)", "vote_id")
		eventually(t, "the replaced bytes are logged", func() error {
			for _, c := range d.Status().Checks {
				if c.Name == "encoding" {
					return nil
				}
			}
			return os.ErrNotExist
		})
		if n := strings.Count(d.log.String(), "U+FFFD"); n != 1 {
			t.Errorf("the replaced bytes were logged %d times", n)
		}
	})
}
