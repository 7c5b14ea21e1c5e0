// Package sourcetest contains what the tests of the sources share: a table, a connection that fails the test on an error, a
// comparison of captured rows with Postgres' own output, and a wait for a condition.
package sourcetest

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/capture/source"
	"capture/internal/busy"
	"capture/internal/postgres"
	"capture/snapshot"
)

// Patience is the longest time that a test waits for something that must happen. On a busy machine, [busy.Limit] makes this
// time longer.
const Patience = 60 * time.Second

// WaitFor waits until check returns nil, and fails the test if that takes too long.
func WaitFor(t testing.TB, what string, check func() error) {
	t.Helper()
	for deadline := time.Now().Add(busy.Limit(Patience)); ; time.Sleep(5 * time.Millisecond) {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// Votes creates the table votes.
const Votes = `CREATE TABLE votes (
	vote_id         serial PRIMARY KEY,
	user_query      text,
	bot_response    text,
	evaluation_json jsonb,
	feedback_tags   text[],
	comment         text,
	citations       jsonb,
	"timestamp"     timestamp DEFAULT CURRENT_TIMESTAMP
)`

// NewEnv returns the Env of a source that follows the table votes in the database at url.
func NewEnv(t testing.TB, kind, url string) *source.Env {
	t.Helper()
	database, err := postgres.ParseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return &source.Env{
		Database: database, Table: postgres.Name{Table: "votes"}, Logger: hclog.NewNullLogger(),
		Timeouts: source.Timeouts{}.WithDefaults(), Progress: source.NewProgress(kind, nil), PollInterval: time.Minute,
	}
}

// Conn is a connection with methods that fail the test on an error.
type Conn struct {
	*pgx.Conn
	t testing.TB
}

// Connect opens a connection that is closed when the test ends.
func Connect(t testing.TB, url string) *Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return &Conn{conn, t}
}

// MustExec runs a statement, and fails the test if the statement fails.
func (c *Conn) MustExec(sql string, args ...any) {
	c.t.Helper()
	if _, err := c.Exec(c.t.Context(), sql, args...); err != nil {
		c.t.Fatalf("%s: %v", sql, err)
	}
}

// CheckRows checks that a View holds the rows of a table as row_to_json prints them in time zone UTC. orderBy is the
// ORDER BY list for these rows.
func (c *Conn) CheckRows(view *snapshot.View, table, orderBy string) {
	c.t.Helper()
	var got strings.Builder
	if _, err := view.WriteTo(&got); err != nil {
		c.t.Fatal(err)
	}
	tx, err := c.Begin(c.t.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	var want string
	if _, err := tx.Exec(c.t.Context(), "SET LOCAL TimeZone = 'UTC'"); err != nil {
		c.t.Fatal(err)
	}
	err = tx.QueryRow(c.t.Context(), "SELECT coalesce(json_agg(row_to_json(t) ORDER BY "+orderBy+"), '[]')::text FROM "+table+" t").Scan(&want)
	if err != nil {
		c.t.Fatal(err)
	}
	if got, want := compact(c.t, got.String()), compact(c.t, want); got != want {
		c.t.Fatalf("captured:\n%.2000s\nwant:\n%.2000s", got, want)
	}
}

// compact returns JSON without white space between its tokens.
func compact(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	if err := json.Compact(&b, []byte(text)); err != nil {
		t.Fatal(err)
	}
	return b.String()
}
