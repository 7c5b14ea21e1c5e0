package capture

import (
	"net/url"
	"strings"
	"testing"

	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// TestTypesWithoutUsage: every source follows columns whose types lie in a schema that the role may not use, even columns of
// the key.
func TestTypesWithoutUsage(t *testing.T) {
	for _, source := range []string{"logical", "notify", "poll"} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			role := "usage_" + source
			t.Cleanup(func() { dropRole(t, role) }) // runs after the database is dropped, because the role has privileges in the database
			db := pgserver.Database(t)
			conn := connect(t, db)
			exec(t, conn, "CREATE SCHEMA extensions")
			exec(t, conn, "CREATE EXTENSION citext SCHEMA extensions")
			exec(t, conn, "CREATE EXTENSION hstore SCHEMA extensions")
			exec(t, conn, "CREATE TYPE extensions.mood AS ENUM ('sad', 'ok')")
			exec(t, conn, "CREATE DOMAIN extensions.moods AS extensions.mood[]")
			exec(t, conn, "CREATE TYPE extensions.pair AS (a extensions.citext, b extensions.mood)")
			exec(t, conn, `CREATE TABLE votes (id int, name extensions.citext, m extensions.mood, ms extensions.moods, h extensions.hstore,
				p extensions.pair, ps extensions.pair[], PRIMARY KEY (name, id))`)
			exec(t, conn, "CREATE ROLE "+role+" LOGIN REPLICATION")
			exec(t, conn, "GRANT SELECT ON votes TO "+role)
			tab, err := postgres.LoadTable(t.Context(), conn, postgres.Name{Table: "votes"})
			if err != nil {
				t.Fatal(err)
			}
			if source != "poll" {
				statements, err := postgres.SetupSQL(t.Context(), conn, tab, postgres.SetupOptions{Source: source})
				if err != nil {
					t.Fatal(err)
				}
				for _, s := range statements {
					exec(t, conn, s)
				}
			}
			insert := `INSERT INTO votes SELECT i, 'Name ' || i, 'ok', '{sad,ok}', 'k=>v', '(X,sad)', '{"(,ok)",NULL}' FROM generate_series`
			exec(t, conn, insert+"(1, 5) i")
			u, err := url.Parse(db)
			if err != nil {
				t.Fatal(err)
			}
			u.User = url.User(role)
			cfg := config(t, u.String())
			cfg.Source, cfg.Table = source, postgres.Name{Table: "votes"}
			d := start(t, cfg)
			d.ready()
			d.flushAndCompare(conn, "votes", `name::text COLLATE "C", id`)
			for _, sql := range []string{insert + "(6, 9) i", "UPDATE votes SET h = 'k=>w', m = 'sad' WHERE id < 3", "UPDATE votes SET name = 'NAME 4' WHERE id = 4",
				"UPDATE votes SET name = 'moved' WHERE id = 5", "DELETE FROM votes WHERE id = 2"} {
				exec(t, conn, sql)
				d.flushAndCompare(conn, "votes", `name::text COLLATE "C", id`)
			}
			log := d.log.String()
			if told := strings.Contains(log, "GRANT USAGE ON SCHEMA"); told != (source == "notify") {
				t.Errorf("the missing privilege is logged: %t", told)
			}
			if strings.Contains(log, "permission denied") {
				t.Errorf("a privilege was missing:\n%s", log)
			}
		})
	}
}
