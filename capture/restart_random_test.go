package capture

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/pgserver"
	"capture/internal/postgres"
)

// TestRestartRandomly stops and starts daemons of each source at random moments, and cuts their connections. Meanwhile, writers
// run random transactions on random tables (see TestGenerated), and another session runs statements such as VACUUM. Each file
// must equal its table. CAPTURE_TEST_RESTARTS sets the number of restarts and cuts. CAPTURE_SEED sets the seed, to repeat a run
// that failed.
func TestRestartRandomly(t *testing.T) {
	if testing.Short() {
		t.Skip("runs many generated statements")
	}
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("CAPTURE_SEED"); s != "" {
		seed, _ = strconv.ParseUint(s, 10, 64)
	}
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"max_prepared_transactions": "10"}})
	admin := connect(t, s.URL("postgres"))
	for _, source := range sourceKinds {
		exec(t, admin, "CREATE DATABASE by_"+source)
		t.Run(fmt.Sprintf("%s/seed=%d", source, seed), func(t *testing.T) { restartRandomly(t, s, source, seed) })
	}
}

// restartRandomly runs the test for one source.
func restartRandomly(t *testing.T, s *pgserver.Server, source string, seed uint64) {
	url := s.URL("by_" + source)
	g := newGenerator(t, url, exactTypes(t, connect(t, url)), seed)
	r := rand.New(rand.NewPCG(seed, 0))
	p := proxied(t, s)
	type run struct {
		*daemon
		cfg Config
	}
	var daemons []*run
	resynced := map[string]int{}
	stop := func(d *run) {
		for _, read := range d.loggedReads() {
			resynced[read.Message]++
		}
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	}
	for i := range 2 {
		tab := g.table(r, i)
		g.tables = append(g.tables, tab)
		cfg := proxiedConfig(t, p, url)
		cfg.Table, cfg.Source, cfg.PollInterval = postgres.Name{Table: tab.name}, source, 50*time.Millisecond
		cfg.tiny(r)
		daemons = append(daemons, &run{startAt(t, cfg, filepath.Join(t.TempDir(), "feedback.json")), cfg})
	}
	writing, rest := g.writeRandomly(url, seed)
	for range testRounds(t, "CAPTURE_TEST_RESTARTS", 3) {
		time.Sleep(time.Duration(r.IntN(400)) * time.Millisecond)
		switch r.IntN(4) {
		case 0:
			p.Cut()
		default:
			d := pick(r, daemons)
			stop(d)
			time.Sleep(time.Duration(r.IntN(100)) * time.Millisecond)
			d.daemon = startAt(t, d.cfg, d.path)
		}
		writing.Lock()
		for i, tab := range g.tables {
			daemons[i].flushAndCompare(g.conn, tab.name, tab.order)
		}
		writing.Unlock()
	}
	rest()
	for i, tab := range g.tables {
		daemons[i].flushAndCompare(g.conn, tab.name, tab.order)
		g.leaveOneRow(tab)
		daemons[i].follows(g.conn, tab.name, tab.order)
		daemons[i].stopDurably(g.conn)
		d, read := startAgain(t, daemons[i].cfg, daemons[i].path)
		if read.Message != "resynced" {
			t.Errorf("the last restart: %+v", read)
		}
		d.flushAndCompare(g.conn, tab.name, tab.order)
	}
	t.Logf("before the last restarts: %v", resynced)
}

// leaveOneRow reduces a table to the columns of its key and to one row, so that the next start can resync it. A resync needs
// a horizon, which a table with columns of some types cannot have. An empty table is always copied whole.
func (g *generator) leaveOneRow(tab *randomTable) {
	g.t.Helper()
	g.loadColumns(g.conn, tab)
	for _, c := range tab.now() {
		exec(g.t, g.conn, fmt.Sprintf("ALTER TABLE %s DROP COLUMN %s CASCADE", tab.name, c.name)) // CASCADE also drops generated columns that depend on this column
	}
	exec(g.t, g.conn, "DELETE FROM "+tab.name)
	var names []string
	for _, c := range tab.key {
		names = append(names, c.name)
	}
	exec(g.t, g.conn, fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM generate_series(1, 1) i", tab.name, strings.Join(names, ", "), strings.Join(tab.keyValues(), ", ")))
}

// TestRestartAfterCrash crashes a server again and again, by killing a backend, while asynchronous commits are not on disk.
// The server loses these commits, restarts by itself, with the same start time, and gives their transaction IDs to new
// transactions. Meanwhile, the test stops and starts daemons that read ordinary snapshots, which show the commits before
// they are on disk. The file must nevertheless equal the table. CAPTURE_TEST_CRASHES sets the number of crashes.
func TestRestartAfterCrash(t *testing.T) {
	if testing.Short() {
		t.Skip("crashes a server again and again")
	}
	t.Parallel()
	for _, source := range []string{"notify", "poll"} {
		t.Run(source, func(t *testing.T) {
			t.Parallel()
			restartAfterCrash(t, source)
		})
	}
}

func restartAfterCrash(t *testing.T, source string) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewPCG(seed, 0))
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{
		"synchronous_commit": "off", "wal_writer_delay": "10s", "autovacuum": "off", "restart_after_crash": "on", "checkpoint_timeout": "1h",
	}})
	url := s.URL("postgres")
	conn := connect(t, url)
	exec(t, conn, "CREATE TABLE t (id int PRIMARY KEY, n text); INSERT INTO t SELECT i, 'first' FROM generate_series(1, 200) i", pgx.QueryExecModeSimpleProtocol)
	exec(t, conn, "SELECT pg_switch_wal()")
	cfg := resyncing(config(t, url))
	cfg.Table, cfg.Source, cfg.PollInterval = postgres.Name{Table: "t"}, source, 20*time.Millisecond
	path := filepath.Join(t.TempDir(), "feedback.json")
	d := startAt(t, cfg, path)
	d.ready()
	write := func(value string) {
		for i := range 1 + r.IntN(8) {
			sql := fmt.Sprintf("UPDATE t SET n = '%s %d' WHERE id %% 20 = %d", value, i, r.IntN(20))
			switch r.IntN(5) {
			case 0:
				sql = fmt.Sprintf("BEGIN; %s; SAVEPOINT a; UPDATE t SET n = n || '+' WHERE id = %d; RELEASE a; COMMIT", sql, r.IntN(200))
			case 1:
				sql = fmt.Sprintf("DELETE FROM t WHERE id = %d; INSERT INTO t VALUES (%d, '%s') ON CONFLICT DO NOTHING", r.IntN(200), 200+r.IntN(50), value)
			}
			exec(t, conn, sql, pgx.QueryExecModeSimpleProtocol)
		}
	}
	lost, resynced := 0, 0
	stop := func() {
		for _, read := range d.loggedReads() {
			if read.Message == "resynced" {
				resynced++
			}
		}
		if err := d.stop(); err != nil {
			t.Error(err)
		}
	}
	crash := func() {
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
	}
	const content = "SELECT md5(string_agg(t::text, ' ' ORDER BY id)) FROM t"
	for i := range testRounds(t, "CAPTURE_TEST_CRASHES", 3) {
		write(fmt.Sprintf("before %d", i))
		d.flushAndCompare(conn, "t", "id") // from here on, the file contains commits that the crash may undo
		if r.IntN(3) == 0 {
			exec(t, conn, "CHECKPOINT")
		}
		stopBefore := r.IntN(2) == 0
		if stopBefore {
			stop()
		}
		before, started := queryOne[string](t, conn, content), queryOne[time.Time](t, conn, "SELECT pg_postmaster_start_time()")
		crash()
		if now := queryOne[time.Time](t, conn, "SELECT pg_postmaster_start_time()"); !now.Equal(started) {
			t.Fatal("the postmaster was restarted, too, so that nothing was tested")
		}
		if queryOne[string](t, conn, content) != before {
			lost++
		}
		write(fmt.Sprintf("after %d", i))
		if !stopBefore && r.IntN(2) == 0 {
			stop()
			stopBefore = true
		}
		if stopBefore {
			d = startAt(t, cfg, path)
		}
		d.flushAndCompare(conn, "t", "id")
	}
	stop()
	t.Logf("crashes lost commits %d times; %d reads transferred only what had changed", lost, resynced)
	if lost == 0 && os.Getenv("CAPTURE_TEST_CRASHES") != "" {
		t.Error("no crash lost a commit")
	}
}
