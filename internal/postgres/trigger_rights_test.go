package postgres

import (
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// TestTriggersNeverFailTheWriter checks that the application's writes succeed even if an administrator has revoked the right
// to execute functions of Postgres from PUBLIC. The triggers still notify if the writer has the right to check whether the
// notification queue has room. Otherwise, they send nothing.
func TestTriggersNeverFailTheWriter(t *testing.T) {
	t.Parallel()
	hardenings := []struct {
		functions string
		silent    bool // whether the triggers send no notification if the writer may not execute these functions
	}{
		{"FUNCTION pg_notification_queue_usage()", true},
		{"FUNCTION float8le(float8, float8)", true},
		{"FUNCTION float8(numeric)", false},
		{"FUNCTION pg_notify(text, text)", false},
		{`FUNCTION concat(VARIADIC "any")`, false},
		{`FUNCTION json_build_array(VARIADIC "any")`, false},
		{"FUNCTION octet_length(text)", false},
		{"FUNCTION array_agg(anynonarray), cardinality(anyarray)", false},
		{"FUNCTION current_setting(text, boolean)", false},
		{"FUNCTION set_config(text, text, boolean)", false},
		{"FUNCTION texteq(text, text), textne(text, text), textcat(text, text), textregexeq(text, text)", false},
		{"ALL FUNCTIONS IN SCHEMA pg_catalog", true},
	}
	for _, c := range []struct{ name, table string }{
		{"statement triggers", "CREATE TABLE votes (vote_id int PRIMARY KEY, comment text)"},
		{"row triggers", "CREATE TABLE votes (vote_id int PRIMARY KEY, comment text) PARTITION BY RANGE (vote_id); CREATE TABLE votes_1 PARTITION OF votes DEFAULT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			conn, url := database(t, c.table, "GRANT ALL ON votes TO pg_monitor") // pg_monitor exists on every server, and is not a superuser
			setup(t, conn, "votes", SetupOptions{Source: "notify"})
			l := listen(t, url, loadTable(t, conn, "votes"))
			for _, h := range hardenings {
				run(t, conn, "REVOKE EXECUTE ON "+h.functions+" FROM PUBLIC")
				queue, err := LoadNotificationQueue(testContext(t), conn)
				if err != nil || queue.LosesNotifications() != h.silent {
					t.Errorf("without %s: %+v, %v", h.functions, queue, err)
				}
				_, findings := diagnose(t, url, "", LocalResources{})
				if f := findings["notifications"]; strings.HasPrefix(f.Hint, "GRANT EXECUTE") != h.silent || strings.Contains(f.Found, "or float8le(") != h.silent {
					t.Errorf("without %s, doctor finds: %+v", h.functions, f)
				}
				writer := connectTo(t, url) // a new session, because an earlier session may have cached a cast and would no longer check the right
				for _, write := range []string{
					"INSERT INTO public.votes VALUES (1)", "UPDATE public.votes SET comment = 'x'", "UPDATE public.votes SET vote_id = 2",
					"DELETE FROM public.votes", "TRUNCATE public.votes",
				} {
					if err := writeAs(t, writer, "pg_monitor", write); err != nil {
						t.Errorf("without %s: %s: %v", h.functions, write, err)
					}
					if got := l.receiveKeys(conn); (len(got) == 0) != h.silent {
						t.Errorf("without %s: %s: received %q", h.functions, write, got)
					}
				}
				writer.Close(testContext(t))
				run(t, conn, "GRANT EXECUTE ON "+h.functions+" TO PUBLIC")
			}
			if err := writeAs(t, conn, "pg_monitor", "INSERT INTO public.votes VALUES (3)"); err != nil {
				t.Error(err)
			}
			if got := l.receiveKeys(conn); !slices.Equal(got, []string{"3"}) {
				t.Errorf("with all rights: received %q", got)
			}
		})
	}
}

// TestTriggersOfHiddenSchema checks that the triggers notify although the writer has no right to use the table's schema or
// the trigger function. The writer writes through a view and to a partition. Its temporary objects and its search path do
// not change what the trigger function calls.
func TestTriggersOfHiddenSchema(t *testing.T) {
	t.Parallel()
	conn, url := database(t, "CREATE SCHEMA hidden", "CREATE SCHEMA api", "GRANT USAGE ON SCHEMA api TO pg_monitor",
		"CREATE DOMAIN hidden.id AS int", "CREATE TYPE hidden.kind AS ENUM ('up', 'down')",
		"CREATE TABLE hidden.votes (vote_id hidden.id, kind hidden.kind, comment text, PRIMARY KEY (vote_id, kind)) PARTITION BY RANGE (vote_id)",
		"CREATE TABLE api.votes_1 PARTITION OF hidden.votes FOR VALUES FROM (0) TO (100)", "GRANT ALL ON api.votes_1 TO pg_monitor",
		"CREATE TABLE hidden.answers (id hidden.id PRIMARY KEY, kind hidden.kind)",
		"CREATE VIEW api.votes AS SELECT * FROM hidden.votes", "CREATE VIEW api.answers AS SELECT * FROM hidden.answers",
		"GRANT ALL ON api.votes, api.answers TO pg_monitor")
	setup(t, conn, "hidden.votes", SetupOptions{Source: "notify"})
	setup(t, conn, "hidden.answers", SetupOptions{Source: "notify"})
	run(t, conn, "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA hidden FROM PUBLIC",
		// The trigger functions must use the objects of pg_catalog, and not these objects with the same names.
		"CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO pg_monitor",
		"CREATE FUNCTION evil.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS 'BEGIN RAISE ''evil''; END'",
		"CREATE FUNCTION evil.pg_notification_queue_usage() RETURNS float8 LANGUAGE sql AS 'SELECT 1::float8'",
		"CREATE FUNCTION evil.le(float8, float8) RETURNS boolean LANGUAGE sql AS 'SELECT false'",
		"CREATE OPERATOR evil.<= (FUNCTION = evil.le, LEFTARG = float8, RIGHTARG = float8)",
		"CREATE DOMAIN evil.float8 AS int", "CREATE DOMAIN evil.text AS int", "CREATE DOMAIN evil.boolean AS int",
		"GRANT TEMPORARY ON DATABASE "+QuoteIdentifier(currentDatabase(t, url))+" TO pg_monitor")
	votes, answers := listen(t, url, loadTable(t, conn, "hidden.votes")), listen(t, url, loadTable(t, conn, "hidden.answers"))
	writer := connectTo(t, url)
	if err := writeAs(t, writer, "pg_monitor", `CREATE TEMPORARY TABLE new_rows (id int); CREATE TEMPORARY TABLE old_rows (id int);
		CREATE DOMAIN pg_temp.float8 AS int; SET search_path = evil, pg_temp, pg_catalog`); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		l         *listener
		statement string
		keys      []string
	}{
		{votes, "INSERT INTO api.votes VALUES (1, 'up', 'x')", []string{"1|up"}},
		{votes, "UPDATE api.votes SET vote_id = 2", []string{"1|up", "2|up"}},
		{votes, "UPDATE api.votes_1 SET kind = 'down'", []string{"2|down", "2|up"}},
		{votes, "DELETE FROM api.votes_1", []string{"2|down"}},
		{answers, "INSERT INTO api.answers VALUES (7, 'up'), (8, 'down')", []string{"7", "8"}},
		{answers, "UPDATE api.answers SET kind = 'up' WHERE id = 8", []string{"8"}},
		{answers, "DELETE FROM api.answers", []string{"7", "8"}},
	} {
		if err := writeAs(t, writer, "pg_monitor", c.statement); err != nil {
			t.Errorf("%s: %v", c.statement, err)
		}
		if got := c.l.receiveKeys(conn); !slices.Equal(got, c.keys) {
			t.Errorf("%s: received %s, want %s", c.statement, strings.Join(got, " "), strings.Join(c.keys, " "))
		}
	}
}

// writeAs runs statements as the role, in one transaction and with the session's search path.
func writeAs(t *testing.T, conn *pgx.Conn, role, statements string) error {
	_, err := conn.Exec(testContext(t), "SET ROLE "+role+"; "+statements+"; RESET ROLE")
	return err
}
