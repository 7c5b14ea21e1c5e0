package faultproxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/faultproxy"
	"capture/internal/pgserver"
)

func TestMain(m *testing.M) { os.Exit(pgserver.Main(m.Run)) }

func connect(t *testing.T, url string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func execSQL(t *testing.T, conn *pgx.Conn, sql string) {
	t.Helper()
	if _, err := conn.Exec(t.Context(), sql); err != nil {
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

func newProxy(t *testing.T, target string) *faultproxy.Proxy {
	t.Helper()
	p, err := faultproxy.New(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestCutAndRefuse(t *testing.T) {
	url := pgserver.Database(t)
	p := newProxy(t, pgserver.Shared(t).Addr())
	through := strings.Replace(url, pgserver.Shared(t).Addr(), p.Addr(), 1)
	conn := connect(t, through)
	// bigText has more bytes than all buffers between client and server can hold.
	bigText := strings.Repeat("vote", 1<<20)
	if got := queryRow[string](t, conn, "SELECT $1::text", bigText); got != bigText {
		t.Errorf("%d bytes came back of %d", len(got), len(bigText))
	}

	p.Refuse()
	if _, err := pgx.Connect(t.Context(), through); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connect while it refuses: %v", err)
	}
	if n := queryRow[int](t, conn, "SELECT 1"); n != 1 {
		t.Error("the existing connection does not continue")
	}
	p.Cut()
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a cut connection still works")
	}
	if err := p.Accept(); err != nil {
		t.Fatal(err)
	}
	again := connect(t, through)
	if n := queryRow[int](t, again, "SELECT 1"); n != 1 {
		t.Error("a new connection after Accept does not work")
	}
	again.Close(t.Context())
	for deadline := time.Now().Add(time.Minute); p.Links() > 0; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d links are open a minute after their clients have closed", p.Links())
		}
	}
}

func TestStall(t *testing.T) {
	url := pgserver.Database(t)
	p := newProxy(t, pgserver.Shared(t).Addr())
	conn := connect(t, strings.Replace(url, pgserver.Shared(t).Addr(), p.Addr(), 1))
	direct := connect(t, url)
	execSQL(t, conn, "CREATE TABLE votes (n int)")
	p.Stall()
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "INSERT INTO votes VALUES (1)")
		done <- err
	}()
	fresh, err := net.Dial("tcp", p.Addr()) // the proxy accepts the connection, but forwards nothing
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if err := fresh.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read while stalled: %v", err)
	}
	if n := queryRow[int](t, direct, "SELECT count(*)::int FROM votes"); n != 0 {
		t.Error("the statement arrived while stalled")
	}
	p.Unstall()
	if err := <-done; err != nil {
		t.Errorf("after Unstall: %v", err)
	}
	if n := queryRow[int](t, direct, "SELECT count(*)::int FROM votes"); n != 1 {
		t.Error("the statement did not arrive after Unstall")
	}

	p.Stall()
	p.Close() // Close must not wait for stalled data
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a connection outlived its proxy")
	}
}

func TestThrottle(t *testing.T) {
	t.Parallel()
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	got := make(chan []byte, 1)
	go func() {
		conn, err := target.Accept()
		if err != nil {
			close(got)
			return
		}
		defer conn.Close()
		all, _ := io.ReadAll(conn)
		got <- all
	}()
	p := newProxy(t, target.Addr().String())
	p.Throttle(20_000, 200*time.Millisecond)
	started := time.Now()
	conn, err := net.Dial("tcp", p.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := conn.Write(make([]byte, 10_000)); err != nil {
		t.Fatal(err)
	}
	if err := conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if n := len(<-got); n != 10_000 {
		t.Errorf("%d bytes arrived", n)
	}
	// The test sets no upper limit, because the transfer can take longer on a busy machine.
	if took := time.Since(started); took < 700*time.Millisecond {
		t.Errorf("10,000 bytes at 20,000 a second and 200 ms took %s", took)
	}
}

func TestTarget(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	p := newProxy(t, "127.0.0.1:1") // nobody listens there
	if _, err := pgx.Connect(t.Context(), p.URL("postgres")); err == nil {
		t.Error("connected without a target")
	}
	p.Target(s.Addr())
	if n := queryRow[int](t, connect(t, p.URL("postgres")), "SELECT 1"); n != 1 {
		t.Error("the new target does not answer")
	}
}
