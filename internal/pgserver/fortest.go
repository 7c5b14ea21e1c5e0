package pgserver

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// TB is what is used of a *testing.T, *testing.B or *testing.F.
type TB interface {
	Helper()
	Name() string
	Cleanup(func())
	Fatalf(format string, args ...any)
}

// shared is the cluster that the tests of a package have in common.
var shared struct {
	sync.Mutex
	server *Server
	err    error
	count  atomic.Int64 // of the databases made, for their names
}

// Main runs a package's tests and then closes the cluster that they shared, whatever happened. It returns what run
// returned, for os.Exit in TestMain.
func Main(run func() int) int {
	defer func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.server != nil {
			shared.server.Close()
			shared.server = nil
		}
	}()
	return run()
}

// Shared is the package's cluster, started on first use. [Main] must run the tests. A test must leave it running and
// configured as it was.
func Shared(tb TB) *Server {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = Start(context.Background(), Options{})
	}
	if shared.err != nil {
		tb.Fatalf("%v", shared.err)
	}
	return shared.server
}

// Database makes a database in the package's cluster and returns its URL. It is dropped when the test ends, with all
// that is still connected to it, its slots and prepared transactions. What with says is put behind CREATE DATABASE:
// "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'".
func Database(tb TB, with ...string) string {
	tb.Helper()
	s := Shared(tb)
	name := databaseName(tb.Name())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := s.connect(ctx, "postgres")
	if err != nil {
		tb.Fatalf("create database %s: %v", name, err)
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" "+strings.Join(with, " ")); err != nil {
		tb.Fatalf("create database %s: %v", name, err)
	}
	tb.Cleanup(func() {
		if err := s.drop(name); err != nil {
			tb.Fatalf("%v", err)
		}
	})
	return s.URL(name)
}

var notWord = regexp.MustCompile(`[^a-z0-9]+`)

// databaseName makes a name that is unique within the cluster, and tells a person which test it belongs to.
func databaseName(test string) string {
	base := strings.Trim(notWord.ReplaceAllString(strings.ToLower(test), "_"), "_")
	return fmt.Sprintf("%.40s_%d", base, shared.count.Add(1))
}

// drop removes a database and what would keep it from being dropped.
func (s *Server) drop(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := s.rollBackPrepared(ctx, name); err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	conn, err := s.connect(ctx, "postgres")
	if err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	defer conn.Close(ctx)
	for {
		// Those that reconnect, and slots that a terminated walsender lets go a moment later, take another round.
		_, err = conn.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
		if err == nil {
			_, err = conn.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1 AND NOT active", name)
		}
		if err == nil {
			_, err = conn.Exec(ctx, "DROP DATABASE IF EXISTS "+pgx.Identifier{name}.Sanitize()+" WITH (FORCE)")
		}
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("drop database %s: %w", name, err)
		case <-time.After(20 * time.Millisecond):
		}
		if conn.IsClosed() {
			return fmt.Errorf("drop database %s: %w", name, err)
		}
	}
}

// rollBackPrepared ends a database's prepared transactions, which only a session in that database may.
func (s *Server) rollBackPrepared(ctx context.Context, database string) error {
	conn, err := s.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, err := conn.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = $1", database)
	if err != nil {
		return err
	}
	gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(gids) == 0 {
		return err
	}
	inside, err := s.connect(ctx, database)
	if err != nil {
		return err
	}
	defer inside.Close(ctx)
	for _, gid := range gids {
		if _, err := inside.Exec(ctx, "ROLLBACK PREPARED '"+strings.ReplaceAll(gid, "'", "''")+"'"); err != nil {
			return err
		}
	}
	return nil
}

// ForTest starts a server of the test's own, closed when the test ends.
func ForTest(tb TB, o Options) *Server {
	tb.Helper()
	s, err := Start(context.Background(), o)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	tb.Cleanup(s.Close)
	return s
}
