package capture

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"capture/internal/pgserver"
)

// functionsThatQuote lists bodies of functions that take a text and return json. Each function fails with the SQLSTATE in
// state. The server's error message contains the argument, with or without quotation marks.
var functionsThatQuote = []struct{ language, body, state string }{
	{"sql", "SELECT to_json($1::numeric)", "22P02"},
	{"sql", "SELECT to_json(to_tsquery('simple', $1)::text)", "42601"},
	{"sql", "SELECT to_json((translate($1, ' ', '_') || '.a.b.c.d')::regclass::text)", "42601"},
	{"plpgsql", "BEGIN RAISE 'not %', $1; END", "P0001"},
	{"plpgsql", "BEGIN RAISE undefined_table USING MESSAGE = $1; END", "42P01"},
	{"plpgsql", "DECLARE j json; BEGIN EXECUTE format('SELECT to_json(%I())', $1) INTO j; RETURN j; END", "42883"},
	{"plpgsql", "DECLARE j json; BEGIN EXECUTE format('SELECT to_json(v) FROM %I', E'x\\nPL/pgSQL function ' || $1) INTO j; RETURN j; END", "42P01"},
}

// TestErrorsHideTextsOfRows checks that neither the log nor the status shows the text of a row, even if the server puts this
// text into an error message.
func TestErrorsHideTextsOfRows(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for retries")
	}
	t.Parallel()
	check := func(t *testing.T, d *daemon, state string) {
		t.Helper()
		eventually(t, "an error with SQLSTATE "+state, func() error {
			if text := d.log.String(); !strings.Contains(text, state) {
				return fmt.Errorf("the log has no such error: %s", text)
			}
			return nil
		})
		status, err := json.Marshal(d.Status())
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{d.log.String(), string(status)} {
			if strings.Contains(strings.ToUpper(text), "SECRET") {
				t.Fatalf("it shows the text: %s", text)
			}
		}
	}
	create := func(i int) string {
		f := functionsThatQuote[i]
		return fmt.Sprintf("CREATE OR REPLACE FUNCTION cj(citext) RETURNS json LANGUAGE %s AS $f$%s$f$", f.language, strings.ReplaceAll(f.body, "$1", "$1::text"))
	}
	for _, source := range sourceKinds {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			url := pgserver.Database(t)
			conn := connect(t, url)
			for _, sql := range []string{"CREATE EXTENSION citext", create(0), "CREATE CAST (citext AS json) WITH FUNCTION cj(citext)", "CREATE TABLE votes (vote_id int PRIMARY KEY, m citext)",
				"INSERT INTO votes VALUES (1, 'SECRET text')"} {
				exec(t, conn, sql)
			}
			setUp(t, conn, "notify")
			cfg := config(t, url)
			cfg.Source = source
			for i, f := range functionsThatQuote {
				exec(t, conn, create(i))
				d := start(t, cfg)
				check(t, d, f.state)
				if _, err := Export(t.Context(), cfg, nil); err == nil || strings.Contains(strings.ToUpper(err.Error()), "SECRET") {
					t.Fatalf("the export says %v", err)
				}
				if err := d.stop(); err != nil && strings.Contains(strings.ToUpper(err.Error()), "SECRET") {
					t.Fatalf("the daemon ends with %v", err)
				}
			}
		})
	}
	t.Run("generated column", func(t *testing.T) {
		t.Parallel()
		url := pgserver.Database(t)
		conn := connect(t, url)
		for _, sql := range []string{"CREATE FUNCTION pd(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$BEGIN IF current_setting('application_name') = 'writer' THEN RETURN 1; END IF; RAISE 'not %', $1; END$$",
			"CREATE TABLE votes (vote_id int PRIMARY KEY, m text, g text GENERATED ALWAYS AS (pd(m)) STORED)", "SET application_name = 'writer'"} {
			exec(t, conn, sql)
		}
		d := start(t, config(t, url))
		d.ready()
		exec(t, conn, "INSERT INTO votes VALUES (1, 'SECRET text')")
		check(t, d, "P0001")
	})
}
