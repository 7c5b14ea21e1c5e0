package pgserver

import (
	"context"
	"flag"
	"fmt"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"

	"capture/internal/volume"
)

// TB contains the methods of *testing.T, *testing.B and *testing.F that this package uses.
type TB interface {
	Helper()
	Name() string
	Cleanup(func())
	Fatalf(format string, args ...any)
	Skip(args ...any)
}

// shared is the cluster that the tests of a package share.
var shared struct {
	sync.Mutex
	server *Server
	err    error
	idle   []*pgx.Conn  // unused connections to the database postgres
	count  atomic.Int64 // number of databases created so far, which makes the name of each database unique
}

// template returns the path of the archive from which the clusters of a package are extracted.
var template = sync.OnceValues(func() (string, error) { return findTemplate(context.Background()) })

// Main runs the tests of a package by calling runTests. Afterwards, even if a test panics, Main closes the cluster that the
// tests shared. It returns the result of runTests, for [os.Exit] in TestMain.
func Main(runTests func() int) int {
	defer func() {
		shared.Lock()
		defer shared.Unlock()
		if shared.server != nil {
			shared.server.Close()
			shared.server = nil
		}
	}()
	return runTests()
}

// startForTest starts a server as Start does, but copies the template if the options allow it.
func startForTest(o Options) (*Server, error) {
	if len(o.Initdb) > 0 || o.Bin != "" {
		return Start(context.Background(), o)
	}
	path, err := template()
	if err != nil {
		return nil, fmt.Errorf("create a cluster to copy: %w", err)
	}
	return startCopy(context.Background(), o, path)
}

// Shared returns the cluster of the package and starts it on first use. [Main] must run the tests. A test must not stop or
// reconfigure the cluster.
func Shared(tb TB) *Server {
	tb.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.server == nil && shared.err == nil {
		shared.server, shared.err = startForTest(Options{Dir: memoryDir(), Settings: map[string]string{
			"max_connections": "200", "max_wal_senders": "50", "max_replication_slots": "50",
		}})
		if shared.err == nil {
			shared.err = shared.server.cacheCatalog()
		}
	}
	if shared.err != nil {
		tb.Fatalf("%v", shared.err)
	}
	return shared.server
}

// cacheCatalog makes the server write template1's file pg_internal.init, a cache of the catalog. CREATE DATABASE copies this file.
// Without it, the first session of each database takes half again as much processor time, because it must write the file.
func (s *Server) cacheCatalog() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := s.connectTo(ctx, "template1")
	if err != nil {
		return err
	}
	return conn.Close(ctx)
}

// Database creates a database in the cluster of the package and returns its URL. options are added to CREATE
// DATABASE, for example "TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'". When the test ends, the database is
// dropped with its sessions, slots and prepared transactions.
func Database(tb TB, options ...string) string {
	tb.Helper()
	s := Shared(tb)
	name := databaseName(tb.Name())
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := s.takeIdle(ctx)
	if err != nil {
		tb.Fatalf("create database %s: %v", name, err)
	}
	defer putIdle(conn)
	if s.version >= 150000 {
		options = append(options, "STRATEGY file_copy") // takes half of the processor time of the default, which writes all pages to the WAL
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{name}.Sanitize()+" "+strings.Join(options, " ")); err != nil {
		tb.Fatalf("create database %s: %v", name, err)
	}
	tb.Cleanup(func() {
		if err := s.dropDatabase(name); err != nil {
			tb.Fatalf("%v", err)
		}
	})
	return s.URL(name)
}

var notWord = regexp.MustCompile(`[^a-z0-9]+`)

// databaseName returns a name that is unique within the cluster and shows which test it belongs to.
func databaseName(test string) string {
	base := strings.Trim(notWord.ReplaceAllString(strings.ToLower(test), "_"), "_")
	return fmt.Sprintf("%.40s_%d", base, shared.count.Add(1))
}

// takeIdle returns a connection to database postgres of the shared cluster. The connections are reused, because starting a
// session takes half as much processor time as CREATE DATABASE.
func (s *Server) takeIdle(ctx context.Context) (*pgx.Conn, error) {
	shared.Lock()
	if n := len(shared.idle); n > 0 {
		conn := shared.idle[n-1]
		shared.idle = shared.idle[:n-1]
		shared.Unlock()
		return conn, nil
	}
	shared.Unlock()
	return s.connectTo(ctx, "postgres")
}

// putIdle makes the connection available to takeIdle, unless it is closed.
func putIdle(conn *pgx.Conn) {
	shared.Lock()
	defer shared.Unlock()
	if !conn.IsClosed() {
		shared.idle = append(shared.idle, conn)
	}
}

// dropDatabase drops a database. If sessions, slots or prepared transactions prevent that, it removes them first.
func (s *Server) dropDatabase(name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := s.takeIdle(ctx)
	if err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	defer putIdle(conn)
	drop := "DROP DATABASE IF EXISTS " + pgx.Identifier{name}.Sanitize() + " WITH (FORCE)"
	if _, err = conn.Exec(ctx, drop); err == nil {
		return nil
	}
	if err := s.rollBackPrepared(ctx, conn, name); err != nil {
		return fmt.Errorf("drop database %s: %w", name, err)
	}
	for {
		// Several rounds may be necessary: a client may reconnect, and a terminated walsender releases its slot a little later.
		_, err = conn.Exec(ctx, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
		if err == nil {
			_, err = conn.Exec(ctx, "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = $1 AND NOT active", name)
		}
		if err == nil {
			_, err = conn.Exec(ctx, drop)
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

// rollBackPrepared rolls back the prepared transactions of a database. It uses conn to list them, and a session in that
// database to roll them back, as Postgres requires.
func (s *Server) rollBackPrepared(ctx context.Context, conn *pgx.Conn, database string) error {
	rows, err := conn.Query(ctx, "SELECT gid FROM pg_prepared_xacts WHERE database = $1", database)
	if err != nil {
		return err
	}
	gids, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil || len(gids) == 0 {
		return err
	}
	inside, err := s.connectTo(ctx, database)
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

// ForTest starts a server for one test and closes it when the test ends. With go test -short it skips the test: starting a
// server takes longer than most tests.
func ForTest(tb TB, o Options) *Server {
	tb.Helper()
	if short() {
		tb.Skip("starts a server of its own")
	}
	if o.Dir == "" && !o.Durable {
		o.Dir = memoryDir()
	}
	s, err := startForTest(o)
	if err != nil {
		tb.Fatalf("%v", err)
	}
	tb.Cleanup(s.Close)
	return s
}

// memoryDir returns a folder in memory, or "" if there is no such folder with enough room. The folder is for servers without
// fsync, which may lose data in a crash even if the data is on a disk. Each database has hundreds of files. In memory,
// creating and dropping a database takes a fifth of the processor time that it takes on a disk.
func memoryDir() string {
	const dir, room = "/dev/shm", 4 << 30 // in containers, /dev/shm often has only 64 MB
	if free, err := volume.FreeBytes(dir); err != nil || free < room || unix.Access(dir, unix.W_OK) != nil {
		return ""
	}
	return dir
}

// short does what testing.Short does, but without importing package testing, which would become part of the capture program.
func short() bool {
	f := flag.Lookup("test.short")
	return f != nil && f.Value.String() == "true"
}
