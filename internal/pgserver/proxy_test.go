package pgserver_test

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

	"capture/internal/pgserver"
)

func newProxy(t *testing.T, target string) *pgserver.Proxy {
	t.Helper()
	p, err := pgserver.NewProxy(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Close)
	return p
}

func TestProxyCutsAndRefuses(t *testing.T) {
	url := pgserver.Database(t)
	p := newProxy(t, pgserver.Shared(t).Addr())
	through := strings.Replace(url, pgserver.Shared(t).Addr(), p.Addr(), 1)
	conn := connect(t, through)
	// More than all buffers on the way hold, in both directions.
	big := strings.Repeat("vote", 1<<20)
	if got := ask[string](t, conn, "SELECT $1::text", big); got != big {
		t.Errorf("%d bytes came back of %d", len(got), len(big))
	}

	p.Refuse()
	if _, err := pgx.Connect(t.Context(), through); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("connecting while it refuses: %v", err)
	}
	if n := ask[int](t, conn, "SELECT 1"); n != 1 {
		t.Error("the connection from before does not go on")
	}
	p.Cut()
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a cut connection answers")
	}
	if err := p.Accept(); err != nil {
		t.Fatal(err)
	}
	again := connect(t, through)
	if n := ask[int](t, again, "SELECT 1"); n != 1 {
		t.Error("no answer after Accept")
	}
	again.Close(t.Context())
	wait(t, "the links to end", func() bool { return p.Links() == 0 })
}

func TestProxyStalls(t *testing.T) {
	url := pgserver.Database(t)
	p := newProxy(t, pgserver.Shared(t).Addr())
	conn := connect(t, strings.Replace(url, pgserver.Shared(t).Addr(), p.Addr(), 1))
	direct := connect(t, url)
	exec1(t, conn, "CREATE TABLE votes (n int)")
	p.Stall()
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(context.Background(), "INSERT INTO votes VALUES (1)")
		done <- err
	}()
	fresh, err := net.Dial("tcp", p.Addr()) // is taken, but hears nothing
	if err != nil {
		t.Fatal(err)
	}
	defer fresh.Close()
	if err := fresh.SetReadDeadline(time.Now().Add(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, err := fresh.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("reading from a black hole: %v", err)
	}
	if n := ask[int](t, direct, "SELECT count(*)::int FROM votes"); n != 0 {
		t.Error("the statement came through")
	}
	p.Unstall()
	if err := <-done; err != nil {
		t.Errorf("after Unstall: %v", err)
	}
	if n := ask[int](t, direct, "SELECT count(*)::int FROM votes"); n != 1 {
		t.Error("the statement did not come through after Unstall")
	}

	p.Stall()
	p.Close() // does not wait for what is stalled
	if _, err := conn.Exec(t.Context(), "SELECT 1"); err == nil {
		t.Error("a connection outlived its proxy")
	}
}

func TestProxyThrottles(t *testing.T) {
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
		t.Errorf("%d bytes came through", n)
	}
	// It can only take longer than the rate and the latency ask for, whatever the machine is busy with.
	if took := time.Since(started); took < 700*time.Millisecond {
		t.Errorf("10,000 bytes at 20,000 a second and 200 ms took %s", took)
	}
}

func TestProxyFailsOver(t *testing.T) {
	t.Parallel()
	s := pgserver.ForTest(t, pgserver.Options{})
	p := newProxy(t, "127.0.0.1:1") // nobody there
	if _, err := pgx.Connect(t.Context(), p.URL("postgres")); err == nil {
		t.Error("connected to nobody")
	}
	p.Target(s.Addr())
	if n := ask[int](t, connect(t, p.URL("postgres")), "SELECT 1"); n != 1 {
		t.Error("no answer from the new target")
	}
}
