package capture

import (
	"fmt"
	"strings"
	"testing"

	"capture/internal/pgserver"
)

// TestOwnersFunctionsCannotWrite: a cast to json and a generated column call functions of the table's owner, which try to write
// and to change the session's search path. These attempts change nothing, even if capture runs as a superuser.
func TestOwnersFunctionsCannotWrite(t *testing.T) {
	for _, source := range []string{"logical", "notify", "poll"} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := connect(t, url)
			exec(t, conn, "SET application_name = 'app'")
			for _, s := range []string{
				"CREATE TABLE evil (app text, path text)",
				`CREATE FUNCTION act() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
					BEGIN INSERT INTO public.evil VALUES (current_setting('application_name'), current_setting('search_path'));
					EXCEPTION WHEN read_only_sql_transaction THEN NULL; END;
					PERFORM set_config('search_path', 'public', false), set_config('transaction_read_only', 'off', true)
						WHERE current_setting('application_name') = 'capture';
				EXCEPTION WHEN OTHERS THEN NULL; END $$`,
				"CREATE FUNCTION twice(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM public.act(); RETURN $1 * 2; END $$",
				"CREATE TYPE mood AS ENUM ('sad', 'ok')",
				"CREATE FUNCTION mood_json(mood) RETURNS json LANGUAGE plpgsql AS $$ BEGIN PERFORM public.act(); RETURN json_build_object('mood', $1::text); END $$",
				"CREATE CAST (mood AS json) WITH FUNCTION mood_json(mood)",
				"CREATE TABLE votes (vote_id int PRIMARY KEY, m mood, g int GENERATED ALWAYS AS (twice(vote_id)) STORED)",
				"INSERT INTO votes SELECT i, 'ok' FROM generate_series(1, 5) i",
			} {
				exec(t, conn, s)
			}
			cfg := config(t, url)
			cfg.Source = source
			d := start(t, cfg)
			d.ready()
			for i := range 3 {
				exec(t, conn, fmt.Sprintf("INSERT INTO votes VALUES (%d, 'sad')", 10+i))
				exec(t, conn, "UPDATE votes SET m = 'ok' WHERE vote_id % 2 = 0")
				d.flushAndCompare(conn, "votes", "vote_id")
			}
			if n := queryOne[int](t, conn, "SELECT count(*) FROM evil WHERE app = 'capture'"); n > 0 {
				t.Errorf("functions wrote %d rows in sessions of capture", n)
			}
			if !strings.Contains(d.log.String(), "the user is a superuser") {
				t.Error("it does not warn that the user is a superuser")
			}
		})
	}
}
