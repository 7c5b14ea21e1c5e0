package pgserver_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sys/unix"

	"capture/internal/pgserver"
)

// childVariable is the environment variable that makes the test program start a server and wait until TestKilledOwner kills it.
// The variable's value is the parent of the server's folder.
const childVariable = "PGSERVER_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childVariable) != "" {
		runChild()
	}
	os.Exit(pgserver.Main(m.Run))
}

func runChild() {
	s, err := pgserver.Start(context.Background(), pgserver.Options{Dir: os.Getenv(childVariable)})
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
	fmt.Println(s.PID(), s.Dir())
	select {}
}

// openDir returns a temporary folder that every user may enter. The server's user may not enter a folder of t.TempDir.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgserver-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func execSQL(t *testing.T, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

func queryRow[T any](t *testing.T, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	var v T
	if err := conn.QueryRow(t.Context(), sql, args...).Scan(&v); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return v
}

func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	for !done() {
		select {
		case <-deadline:
			t.Fatalf("waited a minute for %s", what)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func TestDatabaseIsFreshAndDropped(t *testing.T) {
	var name string
	t.Run("Use It, with / odd 'name'", func(t *testing.T) {
		conn := connect(t, pgserver.Database(t))
		name = queryRow[string](t, conn, "SELECT current_database()")
		if got := queryRow[string](t, conn, "SELECT current_setting('wal_level') || current_setting('server_encoding')"); got != "logicalUTF8" {
			t.Errorf("wal_level and encoding are %s", got)
		}
		execSQL(t, conn, "CREATE TABLE votes (id int)")
		// Leave behind everything that can prevent DROP DATABASE: a slot, a prepared transaction and an open session. At the
		// end of this subtest, the cleanup of pgserver.Database must drop the database all the same.
		queryRow[string](t, conn, "SELECT slot_name::text FROM pg_create_logical_replication_slot('left', 'pgoutput')")
		execSQL(t, conn, "BEGIN; INSERT INTO votes VALUES (1); PREPARE TRANSACTION 'left'")
		execSQL(t, conn, "BEGIN; LOCK TABLE votes IN ACCESS SHARE MODE")
	})
	conn := connect(t, pgserver.Shared(t).URL("postgres"))
	if n := queryRow[int](t, conn, "SELECT count(*)::int FROM pg_database WHERE datname = $1", name); n != 0 {
		t.Errorf("database %s was not dropped", name)
	}
	latin := connect(t, pgserver.Database(t, "TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'"))
	if got := queryRow[string](t, latin, "SELECT current_setting('server_encoding')"); got != "LATIN1" {
		t.Errorf("encoding is %s", got)
	}
}

// TestSystemIdentifiersDiffer checks that two servers for tests have different system identifiers, although both are copies
// of one template. capture therefore treats them as different clusters.
func TestSystemIdentifiersDiffer(t *testing.T) {
	t.Parallel()
	one, other := connect(t, pgserver.Shared(t).URL("postgres")), connect(t, pgserver.ForTest(t, pgserver.Options{}).URL("postgres"))
	const query = "SELECT system_identifier FROM pg_control_system()"
	if a, b := queryRow[int64](t, one, query), queryRow[int64](t, other, query); a == b || a <= 0 || b <= 0 {
		t.Errorf("the identifiers are %d and %d", a, b)
	}
}

func TestStopKillAndStartAgain(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	s := pgserver.ForTest(t, pgserver.Options{Dir: dir, Settings: map[string]string{"application_name": `it's a \ test`}})
	conn := connect(t, s.URL("postgres"))
	if got := queryRow[string](t, conn, "SELECT reset_val FROM pg_settings WHERE name = 'application_name'"); got != `it's a \ test` {
		t.Errorf("the setting is %q", got)
	}
	if want := queryRow[int](t, conn, "SELECT current_setting('server_version_num')::int"); s.VersionNum() != want {
		t.Errorf("VersionNum is %d, want %d", s.VersionNum(), want)
	}
	execSQL(t, conn, "CREATE TABLE votes AS SELECT 1 AS n")

	busy := connect(t, s.URL("postgres"))
	running := make(chan error, 1)
	go func() {
		// This loop never notices that the postmaster is dead, so Kill must also kill the process that runs it.
		_, err := busy.Exec(context.Background(), "DO 'BEGIN LOOP END LOOP; END'")
		running <- err
	}()
	waitUntil(t, "the endless statement", func() bool {
		return queryRow[int](t, conn, "SELECT count(*)::int FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'") == 1
	})
	s.Kill()
	if err := <-running; err == nil {
		t.Error("the statement succeeded on a killed server")
	}
	if s.PID() != 0 {
		t.Errorf("after Kill, PID is %d", s.PID())
	}
	if _, err := net.Dial("tcp", s.Addr()); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dial a killed server: %v", err)
	}

	for _, mode := range []string{"smart", "fast", "immediate"} {
		if err := s.StartAgain(t.Context()); err != nil {
			t.Fatal(err)
		}
		conn := connect(t, s.URL("postgres"))
		if n := queryRow[int](t, conn, "SELECT n FROM votes"); n != 1 {
			t.Errorf("the row is %d", n)
		}
		if mode == "smart" {
			conn.Close(t.Context())
		}
		if err := s.Stop(mode); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Stop("gently"); err == nil {
		t.Error("Stop accepted an unknown mode")
	}
	s.Close()
	s.Close()
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestReload(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Durable: true})
	if err := s.Reload(t.Context(), map[string]string{"wal_sender_timeout": "5s"}); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, s.URL("postgres"))
	if got := queryRow[string](t, conn, "SHOW wal_sender_timeout"); got != "5s" {
		t.Errorf("wal_sender_timeout is %s", got)
	}
	if got := queryRow[string](t, conn, "SHOW fsync"); got != "on" {
		t.Errorf("a durable server has fsync=%s", got)
	}
	execSQL(t, conn, "CREATE ROLE mallory LOGIN")
	if err := s.WriteFile("pg_hba.conf", []byte("host all mallory 127.0.0.1/32 reject\nhost all all 127.0.0.1/32 trust\n")); err != nil {
		t.Fatal(err)
	}
	if err := s.Reload(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	_, err := pgx.Connect(t.Context(), strings.Replace(s.URL("postgres"), "postgres@", "mallory@", 1))
	if pgErr := (*pgconn.PgError)(nil); !errors.As(err, &pgErr) || pgErr.Code != "28000" {
		t.Errorf("a user that pg_hba.conf rejects: %v", err)
	}
}

// TestFreePort checks that FreePort does not return a port that somebody listens on, and that no other process can take this
// process's share of the ports. It does not run in parallel: FreePort listens on the ports of the share for a moment, and
// TestStopKillAndStartAgain expects that nobody listens on the port of its stopped server.
func TestFreePort(t *testing.T) {
	taken, err := pgserver.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", taken))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	share := taken - (taken-15000)%170
	for range 170 { // all ports of the share
		port, err := pgserver.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		if port == taken || port <= share || port >= share+170 {
			t.Fatalf("FreePort returned port %d, a test listens on %d, and the share starts with %d", port, taken, share)
		}
	}
	if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", share)); err == nil {
		l.Close()
		t.Errorf("another process can take the share that starts with port %d", share)
	}
}

func TestStartErrors(t *testing.T) {
	t.Parallel()
	dir := openDir(t)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	for name, c := range map[string]struct {
		options pgserver.Options
		want    string
	}{
		"setting":  {pgserver.Options{Settings: map[string]string{"wal_level": "logicall"}}, `invalid value for parameter "wal_level"`},
		"initdb":   {pgserver.Options{Initdb: []string{"--encoding=KLINGON"}}, "KLINGON"},
		"programs": {pgserver.Options{Bin: dir}, "no such file"},
		"port":     {pgserver.Options{Port: taken.Addr().(*net.TCPAddr).Port}, "the port is taken"},
	} {
		c.options.Dir = dir
		s, err := pgserver.Start(t.Context(), c.options)
		if err == nil {
			s.Close()
			t.Errorf("%s: started", name)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if s, err := pgserver.Start(ctx, pgserver.Options{Dir: dir}); err == nil {
		s.Close()
		t.Error("started with a canceled context")
	}
	if os.Geteuid() == 0 {
		closed := filepath.Join(dir, "closed")
		if err := os.Mkdir(closed, 0o700); err != nil {
			t.Fatal(err)
		}
		if s, err := pgserver.Start(t.Context(), pgserver.Options{Dir: closed}); err == nil {
			s.Close()
			t.Error("started in a folder that the server's user cannot enter")
		} else if !strings.Contains(err.Error(), closed+" is closed to the user") {
			t.Error(err)
		}
		if err := os.Remove(closed); err != nil {
			t.Error(err)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v %v", left, err)
	}
}

func TestStandbyFollowsAndIsPromoted(t *testing.T) {
	t.Parallel()
	primary := pgserver.ForTest(t, pgserver.Options{})
	on := connect(t, primary.URL("postgres"))
	execSQL(t, on, "SELECT pg_create_logical_replication_slot('stays', 'pgoutput')")
	execSQL(t, on, "CREATE TABLE votes AS SELECT generate_series(1, 1000) AS n")
	standby, err := primary.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	execSQL(t, on, "INSERT INTO votes VALUES (1001)")
	copied := connect(t, standby.URL("postgres"))
	waitUntil(t, "the row on the standby", func() bool { return queryRow[int](t, copied, "SELECT max(n) FROM votes") == 1001 })
	// Standby has closed the session in which it copied the primary. On the primary, the session's process and its temporary
	// slot may still exist for a moment.
	waitUntil(t, "the standby as the only one that replicates", func() bool {
		return queryRow[string](t, on, "SELECT string_agg(application_name, ',') FROM pg_stat_replication") == "standby"
	})
	waitUntil(t, "the end of the standby's slot on the primary", func() bool {
		return queryRow[string](t, on, "SELECT string_agg(slot_name, ',') FROM pg_replication_slots") == "stays"
	})

	primary.Kill()
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	execSQL(t, copied, "INSERT INTO votes VALUES (1002)")
	if n := queryRow[int](t, copied, "SELECT count(*)::int FROM votes"); n != 1002 {
		t.Errorf("%d rows after the promotion", n)
	}
}

// TestKilledOwner checks that if a process is killed before it calls Close, its server stops and the server's folder
// disappears.
func TestKilledOwner(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the reaper")
	}
	t.Parallel()
	dir := openDir(t)
	owner := exec.Command(os.Args[0])
	owner.Env = append(os.Environ(), childVariable+"="+dir)
	out, err := owner.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := owner.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	pid, data, _ := strings.Cut(strings.TrimSpace(line), " ")
	if err != nil || filepath.Dir(filepath.Dir(data)) != dir {
		t.Errorf("the owner printed %q, %v", line, err)
	}
	if err := owner.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = owner.Wait() // fails, because the process was killed
	waitUntil(t, "the folder to disappear", func() bool {
		left, err := os.ReadDir(dir)
		return err == nil && len(left) == 0
	})
	n, err := strconv.Atoi(pid)
	if err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the server to stop", func() bool { return !alive(n) })
}

// alive reports whether a process runs. A zombie does not run.
func alive(pid int) bool {
	if stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid)); err == nil {
		_, state, _ := strings.Cut(string(stat), ") ")
		return !strings.HasPrefix(state, "Z")
	}
	return syscall.Kill(pid, 0) == nil
}

// TestSharedMemoryIsReleased checks that after Close, a server's shared memory segment is gone, even if the server was
// killed before.
func TestSharedMemoryIsReleased(t *testing.T) {
	t.Parallel()
	for _, killed := range []bool{false, true} {
		s, err := pgserver.Start(t.Context(), pgserver.Options{Dir: openDir(t)})
		if err != nil {
			t.Fatal(err)
		}
		pid, err := os.ReadFile(filepath.Join(s.Dir(), "postmaster.pid"))
		if err != nil {
			t.Fatal(err)
		}
		var key, id int
		if _, err := fmt.Sscan(strings.Split(string(pid), "\n")[6], &key, &id); err != nil {
			t.Fatal(err)
		}
		var segment unix.SysvShmDesc
		if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &segment); err != nil {
			t.Fatal(err)
		}
		if killed {
			s.Kill()
		}
		s.Close()
		if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &segment); err == nil {
			t.Errorf("killed %t: segment %d is left", killed, id)
		}
	}
}
