package postgres

import (
	"context"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
)

func TestMain(m *testing.M) { os.Exit(pgserver.Main(m.Run)) }

const votesSQL = `CREATE TABLE votes (
	vote_id serial PRIMARY KEY, user_query text, bot_response text, evaluation_json jsonb, feedback_tags text[],
	comment text, citations jsonb, "timestamp" timestamp DEFAULT CURRENT_TIMESTAMP)`

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// connectTo opens a session that ends with the test.
func connectTo(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	ctx := testContext(t)
	cfg, err := ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Connect(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// database creates a database for the test, runs the statements in it, and returns a session and the database's URL.
func database(t testing.TB, statements ...string) (*pgx.Conn, string) {
	t.Helper()
	url := pgserver.Database(t)
	conn := connectTo(t, url)
	run(t, conn, statements...)
	return conn, url
}

func currentDatabase(t *testing.T, url string) string {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg.Database
}

// run runs statements with the session's own search path, as the application does.
func run(t testing.TB, conn *pgx.Conn, statements ...string) {
	t.Helper()
	for _, s := range statements {
		for _, s := range []string{"SET search_path TO DEFAULT", s, "SET search_path = ''"} {
			if _, err := conn.Exec(testContext(t), s); err != nil {
				t.Fatalf("%s: %v", s, err)
			}
		}
	}
}

func loadTable(t testing.TB, conn *pgx.Conn, name string) *Table {
	t.Helper()
	n, err := ParseName(name)
	if err != nil {
		t.Fatal(err)
	}
	table, err := LoadTable(testContext(t), conn, n)
	if err != nil {
		t.Fatal(err)
	}
	return table
}

func wantProblem(t *testing.T, err error, word string) {
	t.Helper()
	var p *Problem
	if !errors.As(err, &p) || !strings.Contains(p.Error(), word) {
		t.Errorf("got %v, want a problem with %q", err, word)
	}
}
