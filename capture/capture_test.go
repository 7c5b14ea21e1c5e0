package capture

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"

	"capture/internal/busy"
	"capture/internal/filetest"
	"capture/internal/objectserver"
	"capture/internal/pgserver"
	"capture/internal/postgres"
	"capture/store"
)

func TestMain(m *testing.M) {
	os.Exit(pgserver.Main(func() int { return objectserver.Main(m.Run) }))
}

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

// patience is the longest time that a test waits for something that must happen.
const patience = 60 * time.Second

// daemon is a Daemon under test.
type daemon struct {
	*Daemon
	t    testing.TB
	path string
	log  *syncBuffer
	stop func() error
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func config(t testing.TB, url string) Config {
	t.Helper()
	cfg, err := parseConfig(url)
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

func parseConfig(url string) (Config, error) {
	cfg := DefaultConfig()
	cfg.Table, cfg.Source, cfg.Version, cfg.FlushDelay = postgres.Name{Table: "votes"}, "logical", "test", 10*time.Millisecond
	cfg.FlushInterval = 1000 * time.Hour // no regular write, so the tests see only writes that have another cause
	db, err := postgres.ParseConfig(url)
	cfg.Database = db
	return cfg, err
}

// start runs a daemon until the test ends.
func start(t testing.TB, cfg Config) *daemon {
	t.Helper()
	return startAt(t, cfg, filepath.Join(t.TempDir(), "feedback.json"))
}

// startAt runs a daemon that writes the file at path, until the test ends.
func startAt(t testing.TB, cfg Config, path string) *daemon {
	t.Helper()
	log := &syncBuffer{}
	if cfg.Logger == nil {
		cfg.Logger = hclog.New(&hclog.LoggerOptions{Output: log, JSONFormat: true, Level: hclog.Debug})
	}
	file, err := store.Open(path, store.Owner{PID: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	newDaemon, err := New(cfg, file)
	if err != nil {
		t.Fatal(err)
	}
	d := &daemon{Daemon: newDaemon, t: t, path: path, log: log}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	d.stop = sync.OnceValue(func() error {
		cancel()
		err := <-done
		file.Close()
		return err
	})
	t.Cleanup(func() {
		if err := d.stop(); err != nil {
			t.Errorf("stop: %v", err)
		}
		if t.Failed() {
			t.Logf("daemon's log:\n%s", log)
		}
	})
	return d
}

// eventually calls f until it returns nil. The calls become rarer, because many of them read a whole file and table, and other
// tests need the processors.
func eventually(t testing.TB, what string, f func() error) {
	t.Helper()
	limit, began := busy.Limit(patience), time.Now()
	for {
		err := f()
		if err == nil {
			return
		}
		if time.Since(began) > limit {
			t.Fatalf("%s: still not after %s: %v", what, limit, err)
		}
		time.Sleep(min(max(5*time.Millisecond, time.Since(began)/10), 50*time.Millisecond))
	}
}

func (d *daemon) ready() {
	d.t.Helper()
	eventually(d.t, "ready", func() error {
		if s := d.Status(); !s.Ready {
			return fmt.Errorf("%+v", s.Checks)
		}
		return nil
	})
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

// oracle returns the rows that the file must contain, as Postgres prints them: compact JSON. orderBy is the list after
// ORDER BY.
func oracle(t testing.TB, conn *pgx.Conn, table, orderBy string) []string {
	t.Helper()
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback(context.Background())
	// DECLARE looks up names with the session's search path. The rows are fetched with an empty search path, so that values
	// of regclass and similar types contain their schema.
	for _, s := range []string{
		"SET LOCAL TimeZone = 'UTC'", "DECLARE oracle CURSOR FOR SELECT row_to_json(t)::text FROM " + table + " t ORDER BY " + orderBy,
		"SET LOCAL search_path = ''",
	} {
		if _, err := tx.Exec(t.Context(), s); err != nil {
			t.Fatal(err)
		}
	}
	rows, err := tx.Query(t.Context(), "FETCH ALL FROM oracle")
	if err != nil {
		t.Fatal(err)
	}
	lines, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		t.Fatal(err)
	}
	for i := range lines {
		lines[i] = filetest.Compact(lines[i])
	}
	filetest.AddValid(lines)
	return lines
}

// flushAndCompare compares the file with the table after a forced flush, and fails the test if they differ.
func (d *daemon) flushAndCompare(conn *pgx.Conn, table, order string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), busy.Limit(patience))
	defer cancel()
	var flushed SnapshotResult
	eventually(d.t, "snapshot", func() (err error) {
		flushed, err = d.Snapshot(ctx)
		return err
	})
	if n := d.compare(conn, table, order); flushed.Rows != n {
		d.t.Errorf("the flush says %d rows, the table has %d", flushed.Rows, n)
	}
}

// compare compares the file with the table, and fails the test if they differ. It returns the number of rows.
func (d *daemon) compare(conn *pgx.Conn, table, order string) int {
	d.t.Helper()
	b, err := os.ReadFile(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	want := oracle(d.t, conn, table, order)
	got, err := filetest.Rows(b)
	if err != nil {
		d.t.Fatal(err)
	}
	for i := range max(len(got), len(want)) {
		switch {
		case i >= len(got):
			d.t.Fatalf("row %d is missing: %.300s", i, want[i])
		case i >= len(want):
			d.t.Fatalf("row %d is too many: %.300s", i, got[i])
		case got[i] != want[i]:
			d.t.Fatalf("row %d:\n%.600s\nwant\n%.600s", i, got[i], want[i])
		}
	}
	return len(want)
}
