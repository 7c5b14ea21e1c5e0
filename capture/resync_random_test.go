package capture

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/faultproxy"
	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// testRounds returns the number in the environment variable, or byDefault if the variable is empty.
func testRounds(t *testing.T, variable string, byDefault int) int {
	t.Helper()
	text := os.Getenv(variable)
	if text == "" {
		return byDefault
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// TestResyncRandomly cuts the connections of several daemons at random moments. Meanwhile, two writers run random transactions
// on random tables (see TestGenerated), and a third session runs statements such as VACUUM. Each file must equal its table.
// After some cuts, the writers pause. The resync must then transfer exactly the rows that are new since the horizon (see
// snapshot.Horizon). CAPTURE_TEST_RESYNCS sets the number of databases. CAPTURE_SEED sets the seed, to repeat a run that
// failed.
func TestResyncRandomly(t *testing.T) {
	if testing.Short() {
		t.Skip("runs many generated statements")
	}
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CAPTURE_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	s := pgserver.ForTest(t, pgserver.Options{})
	admin := connect(t, s.URL("postgres"))
	changesOnly, copies := 0, 0
	for i := range testRounds(t, "CAPTURE_TEST_RESYNCS", 1) {
		name := fmt.Sprintf("round%d", i)
		exec(t, admin, "CREATE DATABASE "+name)
		passed := t.Run(fmt.Sprintf("seed=%d", seed), func(t *testing.T) {
			a, b := resyncRandomly(t, s, name, seed)
			changesOnly, copies = changesOnly+a, copies+b
		})
		if !passed {
			return
		}
		eventually(t, "the database is dropped", func() error { // after a connection is cut, its slot stays active for a moment
			_, err := admin.Exec(t.Context(), "DROP DATABASE "+name+" WITH (FORCE)")
			return err
		})
		seed++
	}
	t.Logf("%d resyncs transferred only what had changed; the table was copied %d times", changesOnly, copies)
	if changesOnly == 0 {
		t.Error("no resync transferred only what had changed")
	}
}

// maintenance lists statements that rewrite or clean up a table without changing its rows.
var maintenance = []string{"VACUUM %s", "VACUUM %s", "VACUUM (FREEZE) %s", "VACUUM (FREEZE, DISABLE_PAGE_SKIPPING) %s", "ANALYZE %s", "CLUSTER %s USING %[1]s_pkey", "VACUUM FULL %s"}

// resyncRandomly runs one round. It returns the number of resyncs that transferred only what had changed, and the number of
// copies of a whole table.
func resyncRandomly(t *testing.T, s *pgserver.Server, database string, seed uint64) (changesOnly, copies int) {
	url := s.URL(database)
	types := exactTypes(t, connect(t, url))
	g := newGenerator(t, url, types, seed)
	types = g.types
	g.types = slices.DeleteFunc(slices.Clone(types), isCast) // so that at least the first table can be resynced
	r := rand.New(rand.NewPCG(seed, 0))
	p := proxied(t, s)
	var daemons []*daemon
	for i := range 3 {
		tab := g.table(r, i)
		g.tables, g.types = append(g.tables, tab), types
		cfg := proxiedConfig(t, p, url)
		cfg.Table = postgres.Name{Table: tab.name}
		cfg.tiny(r)
		daemons = append(daemons, start(t, cfg))
	}
	conn := connect(t, url)
	writing, stop := g.writeRandomly(url, seed)
	for range 3 {
		for range 2 {
			time.Sleep(time.Duration(r.IntN(700)) * time.Millisecond)
			p.Cut()
		}
		writing.Lock()
		for i, tab := range g.tables {
			daemons[i].flushAndCompare(g.conn, tab.name, tab.order)
		}
		g.resyncExactly(daemons, p, conn, r)
		writing.Unlock()
	}
	stop()
	for i, tab := range g.tables {
		daemons[i].flushAndCompare(g.conn, tab.name, tab.order)
		for _, read := range daemons[i].loggedReads() {
			if read.Message == "resynced" {
				changesOnly++
			} else {
				copies++
			}
		}
		if err := daemons[i].stop(); err != nil {
			t.Error(err)
		}
	}
	return changesOnly, copies
}

// writeRandomly starts two writers of random transactions and a session that runs statements such as VACUUM. All of them
// pause while the caller holds the write lock of the returned RWMutex. The returned function ends them.
func (g *generator) writeRandomly(url string, seed uint64) (writing *sync.RWMutex, stop func()) {
	writing = &sync.RWMutex{}
	var writers sync.WaitGroup
	stopped := make(chan struct{})
	write := func(n uint64, act func(*pgx.Conn, *rand.Rand)) {
		conn, r := connect(g.t, url), rand.New(rand.NewPCG(seed, n))
		exec(g.t, conn, "SET lock_timeout = '2s'")
		writers.Go(func() {
			for {
				select {
				case <-stopped:
					return
				default:
				}
				writing.RLock()
				act(conn, r)
				writing.RUnlock()
				time.Sleep(time.Duration(r.IntN(5)) * time.Millisecond)
			}
		})
	}
	write(1, g.transaction)
	write(2, g.transaction)
	write(3, func(conn *pgx.Conn, r *rand.Rand) {
		g.run(conn, fmt.Sprintf(pick(r, maintenance), pick(r, g.tables).name))
		time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
	})
	return writing, func() {
		close(stopped)
		writers.Wait()
	}
}

// resyncExactly runs random transactions while no daemon can connect. Then each daemon must copy its table, or transfer exactly
// the row versions that are new.
func (g *generator) resyncExactly(daemons []*daemon, p *faultproxy.Proxy, conn *pgx.Conn, r *rand.Rand) {
	before := make([]map[string]bool, len(daemons))
	reads := make([]int, len(daemons))
	for i, tab := range g.tables {
		daemons[i].waitHorizonIfAny(conn)
		before[i], reads[i] = identities(g.t, conn, tab.name), len(daemons[i].loggedReads())
	}
	p.Refuse()
	p.Cut()
	for range 1 + r.IntN(3) {
		g.transaction(g.conn, r)
	}
	if err := p.Accept(); err != nil {
		g.t.Fatal(err)
	}
	for i, tab := range g.tables {
		read := daemons[i].waitRead(reads[i])
		after := identities(g.t, conn, tab.name)
		changed := 0
		for id := range after {
			if !before[i][id] {
				changed++
			}
		}
		if read.Message == "resynced" && (read.Changed != changed || read.Rows != len(after)) {
			g.t.Errorf("%s: %+v, want %d of %d rows", tab.name, read, changed, len(after))
		}
		daemons[i].flushAndCompare(g.conn, tab.name, tab.order)
	}
}

// waitHorizonIfAny calls waitHorizon if the rows in memory have a horizon.
func (d *daemon) waitHorizonIfAny(conn *pgx.Conn) {
	d.t.Helper()
	if _, err := d.Snapshot(d.t.Context()); err == nil && d.table.View().Horizon() != nil {
		d.waitHorizon(conn)
	}
}

// TestResyncAfterCrash crashes a server again and again, by killing a backend, while asynchronous commits are not on disk.
// The server loses these commits and restarts by itself, with the same start time. It gives the IDs of the lost
// transactions, and the places of their rows, to new transactions and rows. After each crash, the file must equal the table.
// CAPTURE_TEST_CRASHES sets the number of crashes.
func TestResyncAfterCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("crashes a server again and again")
	}
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{
		"synchronous_commit": "off", "wal_writer_delay": "10s", "autovacuum": "off", "restart_after_crash": "on", "checkpoint_timeout": "1h",
	}})
	url := s.URL("postgres")
	conn := connect(t, url)
	exec(t, conn, "CREATE TABLE t (id int PRIMARY KEY, n text); INSERT INTO t SELECT i, 'first' FROM generate_series(1, 200) i; CREATE PUBLICATION capture FOR TABLE t", pgx.QueryExecModeSimpleProtocol)
	exec(t, conn, "SELECT pg_switch_wal()")
	cfg := resyncing(config(t, url))
	cfg.Table = postgres.Name{Table: "t"}
	d := start(t, cfg)
	d.ready()
	write := func(value string) {
		for i := range 1 + r.IntN(8) {
			sql := fmt.Sprintf("UPDATE t SET n = '%s %d' WHERE id %% 20 = %d", value, i, r.IntN(20))
			switch r.IntN(5) {
			case 0:
				sql = fmt.Sprintf("BEGIN; %s; SAVEPOINT a; UPDATE t SET n = n || '+' WHERE id = %d; RELEASE a; COMMIT", sql, r.IntN(200))
			case 1:
				sql = fmt.Sprintf("DELETE FROM t WHERE id = %d; INSERT INTO t VALUES (%d, '%s') ON CONFLICT DO NOTHING", r.IntN(200), 200+r.IntN(50), value)
			case 2:
				sql = "VACUUM t"
			}
			exec(t, conn, sql, pgx.QueryExecModeSimpleProtocol)
		}
	}
	crashes := testRounds(t, "CAPTURE_TEST_CRASHES", 3)
	lost := 0
	for crash := range crashes {
		if r.IntN(2) == 0 {
			d.flushAndCompare(conn, "t", "id") // this also waits until all WAL so far is on disk
		}
		write(fmt.Sprintf("before %d", crash))
		if r.IntN(2) == 0 {
			time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
		}
		before := queryOne[string](t, conn, "SELECT md5(string_agg(t::text, ' ' ORDER BY id)) FROM t")
		started := queryOne[time.Time](t, conn, "SELECT pg_postmaster_start_time()")
		bystander := connect(t, url)
		if err := syscall.Kill(int(bystander.PgConn().PID()), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the server is back", func() error {
			if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
				return fmt.Errorf("the crash has not reached this session yet")
			}
			again, err := pgx.Connect(t.Context(), url)
			if err == nil {
				conn = again
			}
			return err
		})
		if now := queryOne[time.Time](t, conn, "SELECT pg_postmaster_start_time()"); !now.Equal(started) {
			t.Fatal("the postmaster was restarted, too, so that nothing was tested")
		}
		if queryOne[string](t, conn, "SELECT md5(string_agg(t::text, ' ' ORDER BY id)) FROM t") != before {
			lost++
		}
		write(fmt.Sprintf("after %d", crash))
		d.flushAndCompare(conn, "t", "id")
	}
	resynced := 0
	for _, read := range d.loggedReads() {
		if read.Message == "resynced" {
			resynced++
		}
	}
	t.Logf("%d crashes, of which %d lost commits; %d resyncs transferred only what had changed", crashes, lost, resynced)
	if resynced == 0 || strings.Contains(d.log.String(), "not known") {
		t.Errorf("%d resyncs:\n%+v", resynced, d.loggedReads())
	}
}
