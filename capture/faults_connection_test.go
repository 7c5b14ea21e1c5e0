package capture

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgproto3"

	"capture/capture/source"
	"capture/internal/pgserver"
)

// TestConnectionsCut: the server and the network end capture's sessions again and again while votes are written. Each time,
// capture follows the table again. At the end, the file equals the table.
func TestConnectionsCut(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	p := proxied(t, s)
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 500)
	d := start(t, config(t, p.URL("postgres")))
	d.ready()
	stop := startLoad(t, s.URL("postgres"), 2)
	for i := range 6 {
		if i%2 == 0 {
			exec(t, conn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'capture'")
		} else {
			p.Cut()
		}
		d.ready()
	}
	stop()
	d.flushAndCompare(conn, "votes", "vote_id")
	if n := queryOne[int](t, conn, "SELECT count(*) FROM pg_replication_slots"); n > 1 {
		t.Errorf("%d slots are left", n)
	}
}

// TestServerRestarts: the server stops and starts, crashes under load, and recovers. Status reports the outage within
// seconds, capture keeps trying to connect, and the file never shows an older state after a newer one.
func TestServerRestarts(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 100)
	exec(t, conn, "INSERT INTO votes (vote_id, user_query) VALUES (0, '0')")
	d := start(t, config(t, s.URL("postgres")))
	d.ready()
	done := make(chan struct{})
	read := make(chan error, 1)
	go func() { read <- watchFile(d.path, done, neverBack()) }()
	for round := range 4 {
		counting := countUp(t, s.URL("postgres"))
		at := d.View().Position().LSN
		eventually(t, "changes come", func() error {
			if d.View().Position().LSN <= at+20_000 {
				return errors.New("none")
			}
			return nil
		})
		if round%2 == 0 {
			s.Kill()
		} else if err := s.Stop("fast"); err != nil {
			t.Fatal(err)
		}
		wantWithin(t, 5*time.Second, "to see that the server is gone", func() { d.notReady("following") })
		last := counting()
		if err := s.StartAgain(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.ready()
		conn = connect(t, s.URL("postgres"))
		if n := queryOne[int](t, conn, "SELECT user_query::int FROM votes WHERE vote_id = 0"); n < last {
			t.Fatalf("the server itself lost commits: %d after %d", n, last)
		}
		d.flushAndCompare(conn, "votes", "vote_id")
	}
	close(done)
	if err := <-read; err != nil {
		t.Error(err)
	}
}

// countUp increments the number in vote 0, with a commit each time, until the server stops or crashes. The returned function
// waits for this end, and returns the highest number whose commit the server has confirmed.
func countUp(t testing.TB, url string) (last func() int) {
	conn := connect(t, url)
	result := make(chan int, 1)
	go func() {
		last := 0
		for {
			var n int
			err := conn.QueryRow(context.Background(), "UPDATE votes SET user_query = user_query::int + 1 WHERE vote_id = 0 RETURNING user_query::int").Scan(&n)
			if err != nil {
				break
			}
			last = n
		}
		result <- last
	}()
	return func() int { return <-result }
}

// neverBack returns a check for watchFile. The check fails if the number in vote 0 has decreased.
func neverBack() func(rows []string) error {
	last := -1
	return func(rows []string) error {
		var n int
		if _, err := fmt.Sscanf(rows[0], `{"vote_id":0,"user_query":"%d"`, &n); err != nil {
			return fmt.Errorf("%s: %w", rows[0], err)
		}
		if n < last {
			return fmt.Errorf("the file went back from %d to %d", last, n)
		}
		last = n
		return nil
	}
}

// TestHalfOpen: the network drops everything silently, once while capture streams and once while it connects. capture notices,
// can be stopped all the same, and follows again once the network is back.
func TestHalfOpen(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	p := proxied(t, s)
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 100)
	cfg := config(t, p.URL("postgres"))
	cfg.timeouts = source.Timeouts{Idle: 1500 * time.Millisecond, Ping: 300 * time.Millisecond}
	cfg.Database.ConnectTimeout = time.Second
	d := start(t, cfg)
	d.ready()
	p.Stall()
	wantWithin(t, 10*time.Second, "to notice the silence", func() { d.notReady("no data from the server") })
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('meanwhile')")
	eventually(t, "another attempt has failed, too", func() error {
		if n := d.Status().Attempts; n < 2 {
			return fmt.Errorf("%d attempts", n)
		}
		return nil
	})
	if next := d.Status().NextAttempt; next == nil || time.Until(*next) > longestRetry*2 {
		t.Errorf("the next attempt is at %v", next)
	}
	p.Unstall()
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
	p.Stall()
	wantWithin(t, 2*time.Second, "the stop", func() {
		if err := d.stop(); err != nil {
			t.Fatal(err)
		}
	})
}

// TestHalfOpenWhileCopying: the network drops everything silently during the first copy. capture notices, and copies the
// table once the network is back.
func TestHalfOpenWhileCopying(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	p := proxied(t, s)
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 20_000)
	cfg := config(t, p.URL("postgres"))
	cfg.timeouts = source.Timeouts{Idle: 1500 * time.Millisecond, Ping: 300 * time.Millisecond}
	cfg.Database.ConnectTimeout = time.Second
	p.Throttle(2_000_000, 0)
	d := start(t, cfg)
	copying(t, conn, 1)
	p.Stall()
	d.notReady("no data from the server")
	p.Cut()
	p.Throttle(0, 0)
	p.Unstall()
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
}

// copying waits until a copy runs over the number of connections in jobs. The server may have sent all rows already, since
// socket buffers hold megabytes. The copy's transaction nevertheless stays open until capture has read the rows.
func copying(t testing.TB, conn *pgx.Conn, jobs int) {
	t.Helper()
	eventually(t, fmt.Sprintf("a copy over %d connections", jobs), func() error {
		if n := queryOne[int](t, conn, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'COPY %'"); n < jobs {
			return fmt.Errorf("over %d", n)
		}
		return nil
	})
}

// TestSlowLink: the link carries 10 kB a second and has a round trip of a third of a second, or of CAPTURE_TEST_LATENCY.
// Everything takes longer, and nothing fails: the start needs few round trips, and the slow creation of a slot does not count
// as blocked by a transaction.
func TestSlowLink(t *testing.T) {
	t.Parallel()
	trip, err := time.ParseDuration(cmp.Or(os.Getenv("CAPTURE_TEST_LATENCY"), "300ms"))
	if err != nil {
		t.Fatal(err)
	}
	s := pgserver.ForTest(t, pgserver.Options{})
	p := proxied(t, s)
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 50)
	p.Throttle(10_000, trip/2)
	began := time.Now()
	d := start(t, config(t, p.URL("postgres")))
	d.ready()
	t.Logf("ready after %.1f trips", float64(time.Since(began))/float64(trip))
	for i := range 4 {
		exec(t, conn, "INSERT INTO votes (user_query, bot_response) VALUES ($1, repeat(md5($1), 100))", fmt.Sprint(i))
		if s := d.Status(); !s.Ready {
			t.Fatalf("a false alarm: %+v", s.Checks)
		}
	}
	d.flushAndCompare(conn, "votes", "vote_id")
	if s := d.Status(); !s.Ready {
		t.Fatalf("a false alarm: %+v", s.Checks)
	}
	if n := d.said("regular check of the table failed"); n > 0 {
		t.Errorf("the regular check failed %d times", n)
	}
	p.Cut() // this also cuts a regular check that is running
	eventually(t, "a second copy", func() error {
		if n := d.said("copied"); n != 2 {
			return fmt.Errorf("%d copies", n)
		}
		return nil
	})
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
	for what, times := range map[string]int{
		"copied": 2, "not following": 1, "resyncing table": 0,
		"slot creation is blocked by open transactions; writing a first file from a plain read": 0,
	} {
		if n := d.said(what); n != times {
			t.Errorf("%q is said %d times, want %d", what, n, times)
		}
	}
}

// TestFailover: the primary dies, and the standby that is promoted lacks the last commits. The file then equals the table of
// the new primary.
func TestFailover(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	standby, err := s.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	p := proxied(t, s)
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 100)
	d := start(t, config(t, p.URL("postgres")))
	d.ready()
	eventually(t, "the standby has the votes", func() error {
		sb := connect(t, standby.URL("postgres"))
		if queryOne[*string](t, sb, "SELECT to_regclass('votes')::text") == nil || queryOne[int](t, sb, "SELECT count(*) FROM votes") != 100 {
			return errors.New("not yet")
		}
		return nil
	})
	cut := connect(t, s.URL("postgres"))
	exec(t, cut, "SELECT pg_terminate_backend(pid) FROM pg_stat_replication WHERE application_name <> 'capture'")
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('never on the standby')")
	d.follows(conn, "votes", "vote_id")
	p.Target(standby.Addr())
	s.Kill()
	p.Cut()
	now := connect(t, standby.URL("postgres"))
	exec(t, now, "INSERT INTO votes (user_query) VALUES ('on the new primary')")
	d.ready()
	d.flushAndCompare(now, "votes", "vote_id")
	if strings.Contains(strings.Join(d.fileRows(), ""), "never on the standby") {
		t.Error("the file has a vote that the new primary has not")
	}
}

// TestStandbyIsRefused: on a standby, --source logical fails, because capture cannot create its publication there. Status
// reports this, and capture follows once the standby is promoted.
func TestStandbyIsRefused(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 10)
	standby, err := s.Standby(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(standby.Close)
	d := start(t, config(t, standby.URL("postgres")))
	d.notReady("standby")
	if err := standby.Promote(t.Context()); err != nil {
		t.Fatal(err)
	}
	d.ready()
	d.flushAndCompare(connect(t, standby.URL("postgres")), "votes", "vote_id")
}

// TestOtherSystem: another cluster, as if restored from an older backup, answers at the same address. The file then equals
// the other cluster's table, and the log reports the other cluster.
func TestOtherSystem(t *testing.T) {
	t.Parallel()
	a, b := pgserver.ForTest(t, pgserver.Options{}), pgserver.ForTest(t, pgserver.Options{})
	p := proxied(t, a)
	conn, other := connect(t, a.URL("postgres")), connect(t, b.URL("postgres"))
	table(t, conn, 100)
	table(t, other, 40)
	d := start(t, config(t, p.URL("postgres")))
	d.ready()
	was := d.Status().SystemID
	p.Target(b.Addr())
	p.Cut()
	eventually(t, "another system", func() error {
		if s := d.Status(); s.SystemID == was || !s.Ready {
			return fmt.Errorf("system %s, ready %v", s.SystemID, s.Ready)
		}
		return nil
	})
	d.flushAndCompare(other, "votes", "vote_id")
	if d.said("connected to another database cluster than before") != 1 {
		t.Error("it is not said that this is another cluster")
	}
}

// TestPooler: the address leads to a pooler, which cannot replicate. The status says to use the address of the server itself.
func TestPooler(t *testing.T) {
	t.Parallel()
	u := pgserver.Database(t)
	conn := connect(t, u)
	table(t, conn, 10)
	d := start(t, config(t, throughPooler(t, u)))
	d.notReady("pooler", "point --database-url at the server itself")
}

// throughPooler returns the URL of a proxy in front of the server at the given URL. The proxy refuses replication as PgBouncer
// does, and forwards everything else.
func throughPooler(t testing.TB, to string) string {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := u.Host
	var wg sync.WaitGroup
	serve := func(client net.Conn) error {
		defer client.Close()
		backend := pgproto3.NewBackend(client, client)
		msg, err := backend.ReceiveStartupMessage()
		if err != nil {
			return err
		}
		startup, ok := msg.(*pgproto3.StartupMessage)
		if !ok {
			return fmt.Errorf("unexpected %T", msg)
		}
		if _, ok := startup.Parameters["replication"]; ok {
			backend.Send(&pgproto3.ErrorResponse{Severity: "FATAL", Code: "08P01", Message: "unsupported startup parameter: replication"})
			return backend.Flush()
		}
		server, err := net.Dial("tcp", target)
		if err != nil {
			return err
		}
		defer server.Close()
		hello, err := startup.Encode(nil)
		if err != nil {
			return err
		}
		if _, err := server.Write(hello); err != nil {
			return err
		}
		wg.Go(func() {
			_, _ = io.Copy(client, server)
			client.Close()
		})
		_, err = io.Copy(server, client)
		return err
	}
	wg.Go(func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { _ = serve(client) })
		}
	})
	t.Cleanup(func() { listener.Close() })
	u.Host = listener.Addr().String()
	return u.String()
}

// TestTooManyConnections: the application uses all connections that the server allows. Status reports this, and capture
// follows the table once connections are free.
func TestTooManyConnections(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{Settings: map[string]string{"max_connections": "8", "superuser_reserved_connections": "1"}})
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 10)
	exec(t, conn, "CREATE ROLE app LOGIN; GRANT ALL ON SCHEMA public TO app; CREATE ROLE follower LOGIN REPLICATION; GRANT app TO follower; GRANT CREATE ON DATABASE postgres TO app; ALTER TABLE votes OWNER TO app")
	as := func(user string) string { return strings.Replace(s.URL("postgres"), "postgres@", user+"@", 1) }
	var taken []interface{ Close(context.Context) error }
	for range 6 {
		taken = append(taken, connect(t, as("app")))
	}
	d := start(t, config(t, as("follower")))
	d.notReady("no connection left")
	for _, c := range slices.Backward(taken) {
		c.Close(t.Context())
	}
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
}

// TestServerFrozen: the server stops answering, as on a host that swaps or whose storage hangs. capture notices, and follows
// the table again once the server answers.
func TestServerFrozen(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	conn := connect(t, s.URL("postgres"))
	table(t, conn, 10)
	cfg := config(t, s.URL("postgres"))
	cfg.timeouts = source.Timeouts{Idle: 1500 * time.Millisecond, Ping: 300 * time.Millisecond}
	cfg.Database.ConnectTimeout = time.Second
	d := start(t, cfg)
	d.ready()
	frozen := []int{s.PID(), queryOne[int](t, conn, "SELECT active_pid FROM pg_replication_slots")}
	signal := func(sig syscall.Signal) {
		for _, pid := range frozen {
			if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
				t.Fatal(err)
			}
		}
	}
	signal(syscall.SIGSTOP)
	t.Cleanup(func() { signal(syscall.SIGCONT) })
	d.notReady("following")
	signal(syscall.SIGCONT)
	d.ready()
	exec(t, conn, "INSERT INTO votes (user_query) VALUES ('after it')")
	d.flushAndCompare(conn, "votes", "vote_id")
}

// TestNameGone: the host's name cannot be resolved for a while. Status contains the name, and capture follows the table once
// the name can be resolved.
func TestNameGone(t *testing.T) {
	t.Parallel()
	url := pgserver.Database(t)
	conn := connect(t, url)
	table(t, conn, 10)
	cfg := config(t, url)
	var gone atomic.Bool
	cfg.retry = 500 * time.Millisecond
	cfg.Database.Host = "database.invalid"
	cfg.Database.Fallbacks = nil
	cfg.Database.LookupFunc = func(_ context.Context, host string) ([]string, error) {
		if gone.Load() {
			return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
		}
		return []string{"127.0.0.1"}, nil
	}
	gone.Store(true)
	d := start(t, cfg)
	d.notReady("cannot be resolved", "database.invalid")
	gone.Store(false)
	d.ready()
	d.flushAndCompare(conn, "votes", "vote_id")
}
