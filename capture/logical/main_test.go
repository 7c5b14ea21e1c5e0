package logical

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/pgserver"
	"capture/internal/postgres"
)

func TestMain(m *testing.M) { os.Exit(pgserver.Main(m.Run)) }

// patience is how long a test waits for what must come.
const patience = 60 * time.Second

const votes = `CREATE TABLE votes (
	vote_id         serial PRIMARY KEY,
	user_query      text,
	bot_response    text,
	evaluation_json jsonb,
	feedback_tags   text[],
	comment         text,
	citations       jsonb,
	"timestamp"     timestamp DEFAULT CURRENT_TIMESTAMP
)`

// testEnv returns what a Source may use that follows votes in a database.
func testEnv(t testing.TB, url string) *source.Env {
	t.Helper()
	database, err := postgres.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return &source.Env{
		Database: database, Table: postgres.Name{Table: "votes"}, Logger: hclog.NewNullLogger(),
		Timeouts: source.Timeouts{}.WithDefaults(), Progress: source.NewProgress("logical", nil),
	}
}

func connect(t testing.TB, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// checkRows checks that a file holds the rows of a table, as row_to_json prints them.
func checkRows(t testing.TB, file string, conn *pgx.Conn, table, order string) {
	t.Helper()
	var want string
	err := conn.QueryRow(t.Context(), "SELECT coalesce(json_agg(row_to_json(t) ORDER BY "+order+"), '[]')::text FROM "+table+" t, set_config('TimeZone', 'UTC', false)").Scan(&want)
	if err != nil {
		t.Fatal(err)
	}
	if got, want := compact(t, file), compact(t, want); got != want {
		t.Errorf("the file has\n%.2000s\nwant\n%.2000s", got, want)
	}
}

// compact returns JSON without white space between its tokens.
func compact(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(strings.TrimSpace(text))); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
