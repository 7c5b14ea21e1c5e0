// Package statefiletest provides each test with a database, and with files that capture has written from the database's tables.
package statefiletest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/snapshot"
	"capture/snapshot/rowjson"
	"capture/store"
)

// DB is a database for one test. If an error occurs, its methods end the test.
type DB struct {
	*testing.T
	Config *pgx.ConnConfig
	Conn   *pgx.Conn // connection with the settings of postgres.Connect
}

// NewDB creates a database for a test. The settings are appended to CREATE DATABASE: see pgserver.Database.
func NewDB(t *testing.T, settings ...string) *DB {
	t.Helper()
	d := &DB{T: t}
	cfg, err := postgres.ParseConfig(pgserver.Database(t, settings...))
	if err != nil {
		t.Fatal(err)
	}
	d.Config = cfg
	d.Conn = d.Connect(cfg)
	return d
}

// Connect opens another connection, which is closed at the end of the test.
func (d *DB) Connect(cfg *pgx.ConnConfig) *pgx.Conn {
	d.Helper()
	conn, err := postgres.Connect(context.Background(), cfg)
	if err != nil {
		d.Fatal(err)
	}
	d.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// As returns a DB for the same database with a connection of another role.
func (d *DB) As(role string) *DB {
	d.Helper()
	cfg := d.Config.Copy()
	cfg.User = role
	return &DB{T: d.T, Config: cfg, Conn: d.Connect(cfg)}
}

// Exec runs SQL statements.
func (d *DB) Exec(sql string) {
	d.Helper()
	d.results(sql)
}

// results runs SQL statements with the session's own search path, as an application does.
func (d *DB) results(sql string) (results []*pgconn.Result) {
	d.Helper()
	for _, statements := range []string{"SET search_path TO DEFAULT", sql, "SET search_path = ''"} {
		r, err := d.Conn.PgConn().Exec(context.Background(), statements).ReadAll()
		if err != nil {
			d.Fatalf("%v in\n%.2000s", err, statements)
		}
		if statements == sql {
			results = r
		}
	}
	return results
}

// Query returns the rows of a query, one per line, with "|" between columns.
func (d *DB) Query(sql string) string {
	d.Helper()
	results := d.results(sql)
	var b strings.Builder
	for i, row := range results[len(results)-1].Rows {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.Write(bytes.Join(row, []byte("|")))
	}
	return b.String()
}

// Name parses the name of a table.
func (d *DB) Name(table string) postgres.Name {
	d.Helper()
	name, err := postgres.ParseName(table)
	if err != nil {
		d.Fatal(err)
	}
	return name
}

// Export writes a table to a file with a manifest, as capture does, and returns the path of the file.
func (d *DB) Export(table string) string {
	d.Helper()
	path := filepath.Join(d.TempDir(), "feedback.json")
	f, err := store.Open(path, store.Owner{Version: "test"})
	if err != nil {
		d.Fatal(err)
	}
	defer f.Close()
	if _, err := f.Write(d.View(table), store.ReasonExport); err != nil {
		d.Fatal(err)
	}
	return path
}

// View reads a table and returns its rows as a View.
func (d *DB) View(name string) *snapshot.View {
	d.Helper()
	ctx := context.Background()
	table, err := postgres.LoadTable(ctx, d.Conn, d.Name(name))
	if err != nil {
		d.Fatal(err)
	}
	encoder, err := rowjson.NewEncoder(table.Shape, false)
	if err != nil {
		d.Fatal(err)
	}
	t := snapshot.NewTable()
	t.Load(table.Shape, snapshot.Origin{Source: "export"})
	rows, err := d.Conn.Query(ctx, "SELECT "+table.SelectList()+" FROM "+table.FromClause())
	if err != nil {
		d.Fatal(err)
	}
	for rows.Next() {
		key, err := encoder.AppendKey(nil, rows.RawValues())
		if err != nil {
			d.Fatal(err)
		}
		line, err := encoder.AppendCopiedRow(nil, rows.RawValues())
		if err != nil {
			d.Fatal(err)
		}
		t.Put(key, line)
	}
	if rows.Err() != nil {
		d.Fatal(rows.Err())
	}
	t.Commit(snapshot.Position{})
	return t.View()
}

// WriteFile writes a file without a manifest, as another program would, and returns the path of the file.
func (d *DB) WriteFile(content string) string {
	d.Helper()
	path := filepath.Join(d.TempDir(), "feedback.json")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		d.Fatal(err)
	}
	return path
}

// VotesDDL creates the application's table.
const VotesDDL = `CREATE TABLE votes (
	vote_id serial PRIMARY KEY, user_query text, bot_response text, evaluation_json jsonb, feedback_tags text[],
	comment text, citations jsonb, "timestamp" timestamp DEFAULT CURRENT_TIMESTAMP)`

// CreateVotes creates the application's table with n rows. Their values contain line breaks, quotes, backslashes, emoji and
// NULLs, as real votes do.
func (d *DB) CreateVotes(n int) {
	d.Helper()
	d.Exec(fmt.Sprintf(`%s; INSERT INTO votes (user_query, bot_response, evaluation_json, feedback_tags, comment, citations, "timestamp")
		SELECT 'question ' || i, repeat(E'Line\n"x"\\ é 🗳️\t', 1 + i %% 20), jsonb_build_object('score', i %% 5, 'n', i::numeric / 7),
			ARRAY['a', 'b "c"', NULL], CASE WHEN i %% 3 = 0 THEN NULL ELSE 'NULL' END, '[{"url": "x"}]', '2025-06-17 16:58:00'::timestamp + i * interval '1.5 s'
		FROM generate_series(1, %d) i`, VotesDDL, n))
}

// WantSameRows fails the test unless the tables a and b have the same rows. key is the name of a column that orders the
// rows.
func (d *DB) WantSameRows(a, b, key string) {
	d.Helper()
	query := "SELECT row_to_json(t) FROM %s t ORDER BY " + key
	left, right := d.Query(fmt.Sprintf(query, a)), d.Query(fmt.Sprintf(query, b))
	if left != right {
		l, r := strings.Split(left, "\n"), strings.Split(right, "\n")
		for i := range l {
			if i >= len(r) || l[i] != r[i] {
				d.Fatalf("%s and %s differ from row %d of %d and %d:\n%.1000s\n%.1000s", a, b, i, len(l), len(r), l[i], strings.Join(r[min(i, len(r)):], "\n"))
			}
		}
		d.Fatalf("%s has more rows than %s", b, a)
	}
}
