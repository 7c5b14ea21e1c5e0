package postgres

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/busy"
	"capture/internal/faultproxy"
	"capture/internal/pgserver"
)

// TestQueryConn checks that a QueryConn connects again after its connection broke, and never after Close.
func TestQueryConn(t *testing.T) {
	t.Parallel()
	cfg, err := ParseConfig(pgserver.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	q := NewQueryConn(cfg, 0)
	pids := map[uint32]bool{}
	query := func(ctx context.Context, conn *pgx.Conn) error {
		pids[conn.PgConn().PID()] = true
		return conn.Ping(ctx)
	}
	for range 2 {
		if err := q.Do(t.Context(), query); err != nil {
			t.Fatal(err)
		}
	}
	if len(pids) != 1 {
		t.Errorf("%d connections for two calls", len(pids))
	}
	err = q.Do(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
		_, err := conn.Exec(ctx, "SELECT pg_terminate_backend(pg_backend_pid())")
		return err
	})
	if err == nil {
		t.Error("the session was not terminated")
	}
	if err := q.Do(t.Context(), query); err != nil || len(pids) != 2 {
		t.Errorf("after the end of its session: %v, %d connections", err, len(pids))
	}
	q.Close()
	if err := q.Do(t.Context(), query); !errors.Is(err, errQueryConnClosed) || len(pids) != 2 {
		t.Errorf("after Close: %v, %d connections", err, len(pids))
	}
}

// TestQueryConnTake checks that a connection from Take belongs to the caller until Return, and is used again afterwards,
// without the caller's transaction.
func TestQueryConnTake(t *testing.T) {
	t.Parallel()
	cfg, err := ParseConfig(pgserver.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	q := NewQueryConn(cfg, 0)
	defer q.Close()
	take := func() (conn *pgx.Conn, pid uint32) {
		t.Helper()
		conn, err := q.Take(t.Context())
		if err == nil {
			_, err = conn.Exec(t.Context(), "BEGIN; SET LOCAL work_mem = '64kB'", pgx.QueryExecModeSimpleProtocol)
		}
		if err != nil {
			t.Fatal(err)
		}
		return conn, conn.PgConn().PID()
	}
	use := func() (pid uint32) {
		t.Helper()
		err := q.Do(t.Context(), func(ctx context.Context, conn *pgx.Conn) error {
			pid = conn.PgConn().PID()
			if status := conn.PgConn().TxStatus(); status != 'I' {
				t.Errorf("the transaction status is %c", status)
			}
			return conn.Ping(ctx)
		})
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	conn, pid := take()
	q.Return(t.Context(), conn)
	if used := use(); used != pid {
		t.Error("the returned connection is not used again")
	}
	conn, pid = take()
	other := use()
	if other == pid {
		t.Error("Do used a connection that was taken")
	}
	q.Return(t.Context(), conn)
	if !conn.IsClosed() || use() != other {
		t.Error("two connections are left")
	}
	conn, _ = take()
	q.Close()
	q.Return(t.Context(), conn)
	if !conn.IsClosed() {
		t.Error("a connection that was returned after Close is open")
	}
}

// TestIdleTimeout checks that an exchange may take longer than the timeout while bytes arrive. Once no more bytes arrive,
// the exchange must end with the error of an idle connection.
func TestIdleTimeout(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for timeouts")
	}
	t.Parallel()
	timeout := busy.Limit(300 * time.Millisecond)
	cfg, err := ParseConfig("postgres://localhost/")
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	defer theirs.Close()
	cfg.DialFunc = func(context.Context, string, string) (net.Conn, error) { return ours, nil }
	var clock ReadClock
	conn, err := clock.Attach(cfg).DialFunc(t.Context(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range 10 { // one byte per third of the timeout, for more than three timeouts in all
			time.Sleep(timeout / 3)
			_, _ = theirs.Write([]byte{0})
		}
	}()
	start, read := time.Now(), int64(0)
	err = clock.WithIdleTimeout(t.Context(), timeout, func(ctx context.Context) error {
		stop := context.AfterFunc(ctx, func() { ours.Close() })
		defer stop()
		var err error
		read, err = io.Copy(io.Discard, conn)
		if err == nil {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "no data from the server") {
		t.Errorf("the error is %v", err)
	}
	if took := time.Since(start); read != 10 || took < 10*timeout/3 {
		t.Errorf("it ended after %s and %d of 10 bytes", took, read)
	}
}

// TestRollbackOnSlowServer checks that the connection is still usable after a Rollback that the server answers only after
// more than a second.
func TestRollbackOnSlowServer(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for timeouts")
	}
	t.Parallel()
	proxy, err := faultproxy.New(pgserver.Shared(t).Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer proxy.Close()
	cfg, err := ParseConfig(proxy.URL("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer CloseNow(conn.PgConn())
	tx, err := Begin(t.Context(), conn, "READ ONLY")
	if err != nil {
		t.Fatal(err)
	}
	proxy.Stall()
	answer := time.AfterFunc(1500*time.Millisecond, proxy.Unstall)
	defer answer.Stop()
	Rollback(t.Context(), tx)
	if err := conn.Ping(t.Context()); err != nil {
		t.Errorf("after the rollback: %v", err)
	}
}
