// Package pgserver runs throwaway Postgres servers, for `capture demo` and for the tests, from the server programs that
// the machine has (PostgreSQL 13 to 18).
//
// [Start] makes a cluster in a temporary folder and starts it on a free port of the loopback interface, with logical
// replication allowed and no password asked. [Server.Close] stops it and removes everything; should this process die
// without that, even by SIGKILL, a small shell that it left behind does the same.
//
// Tests share one cluster a package and take a database each:
//
//	func TestMain(m *testing.M) { os.Exit(pgserver.Main(m.Run)) }
//
//	func TestVotes(t *testing.T) { url := pgserver.Database(t) … }
//
// A test that stops, kills or reconfigures a server takes one of its own by [ForTest], and puts a [Proxy] in front of
// it to cut, stall or slow the connections.
package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
)

// Options say how a server differs from the usual one. The zero value is a usual one.
type Options struct {
	Settings map[string]string // for postgresql.conf, unquoted
	Initdb   []string          // further flags of initdb: "--encoding=LATIN1", "--locale=C"
	Dir      string            // parent of the server's folder; os.TempDir() where empty. As root, others must be able to enter it (not t.TempDir)
	Port     int               // 0 takes a free one
	Bin      string            // folder of the server programs; what Bin finds where empty
	Durable  bool              // fsync on, at the price of speed
}

// Server is a Postgres server that this process started. Its methods may be called from any goroutine, but those that
// start and stop it not at the same time.
type Server struct {
	bin     string
	root    string // holds all of it: data, socket and log
	port    int
	version int
	as      *syscall.Credential
	keeper  *keeper
	close   sync.Once

	mu   sync.Mutex
	proc *process // nil while stopped
}

const (
	startTimeout = 2 * time.Minute // crash recovery takes a while on a busy machine
	stopTimeout  = time.Minute
)

var errPortTaken = errors.New("the port is taken")

// Start makes a server and returns once it answers. The context is for starting only: the server runs until Close.
func Start(ctx context.Context, o Options) (*Server, error) {
	s, err := prepare(o.Bin, o.Dir)
	if err != nil {
		return nil, fmt.Errorf("start a Postgres server: %w", err)
	}
	if err := s.create(ctx, o); err != nil {
		s.Close()
		return nil, fmt.Errorf("start a Postgres server: %w", err)
	}
	return s, nil
}

// StartAgain starts a stopped or killed server on its data folder and port, and returns once it answers.
func (s *Server) StartAgain(ctx context.Context) error {
	if s.running() != nil {
		return errors.New("start Postgres: it runs already")
	}
	var logged int64
	if info, err := os.Stat(s.LogPath()); err == nil {
		logged = info.Size()
	}
	p, err := launch(s.LogPath(), s.as, filepath.Join(s.bin, "postgres"), "-D", s.Dir())
	if err != nil {
		return fmt.Errorf("start Postgres: %w", err)
	}
	s.set(p)
	err = s.answers(ctx, p)
	if err == nil {
		return nil
	}
	select {
	case <-p.gone:
	default:
		p.kill()
	}
	s.set(nil)
	tail := s.logTail(logged)
	if strings.Contains(tail, "could not bind") {
		return fmt.Errorf("start Postgres on port %d: %w%s", s.port, errPortTaken, tail)
	}
	return fmt.Errorf("start Postgres: %w%s", err, tail)
}

// answers waits until the server takes connections.
func (s *Server) answers(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	// Where somebody else has the port, who may never answer, the end of our server ends the asking.
	asking, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer stop()
		_ = p.wait(asking)
	}()
	for {
		last := s.ask(asking)
		if last == nil {
			return nil
		}
		select {
		case <-asking.Done():
		case <-time.After(20 * time.Millisecond):
			continue
		}
		if ctx.Err() != nil {
			return fmt.Errorf("it does not answer: %w", last)
		}
		<-p.gone
		return errors.New(p.cmd.ProcessState.String())
	}
}

// ask checks that it is this server that answers on the port, and learns its version.
func (s *Server) ask(ctx context.Context) error {
	conn, err := s.connect(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	var data string
	var version int
	err = conn.QueryRow(ctx, "SELECT current_setting('data_directory'), current_setting('server_version_num')::int").
		Scan(&data, &version)
	if err != nil {
		return err
	}
	if data != s.Dir() {
		return fmt.Errorf("another server (%s) is on port %d", data, s.port)
	}
	if s.version == 0 { // it never changes, and may be read while the server is started again
		s.version = version
	}
	return nil
}

func (s *Server) connect(ctx context.Context, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(s.URL(database))
	if err != nil {
		return nil, err
	}
	// What this process' environment asks for (PGOPTIONS and the like) is meant for others.
	cfg.RuntimeParams = map[string]string{"application_name": "pgserver"}
	cfg.ConnectTimeout = 10 * time.Second
	return pgx.ConnectConfig(ctx, cfg)
}

// URL is where a client finds a database, as the superuser postgres.
func (s *Server) URL(database string) string { return connectURL(s.Addr(), database) }

func connectURL(addr, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: addr, Path: database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Addr is the server's host and port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Port is the server's TCP port on 127.0.0.1. It stays the same when the server is started again.
func (s *Server) Port() int { return s.port }

// Dir is the data folder.
func (s *Server) Dir() string { return filepath.Join(s.root, "data") }

// LogPath is the file that the server's messages go to.
func (s *Server) LogPath() string { return filepath.Join(s.root, "log") }

// VersionNum is the server's version as server_version_num gives it: 150018 for 15.18.
func (s *Server) VersionNum() int { return s.version }

// PID is the postmaster's process number, 0 while stopped.
func (s *Server) PID() int {
	if p := s.running(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// Stop shuts the server down and waits until it is gone: "smart" waits for clients to leave, "fast" disconnects them,
// "immediate" crashes it. After a minute it gives up, and the server may still be running.
func (s *Server) Stop(mode string) error {
	sig, ok := map[string]syscall.Signal{"smart": syscall.SIGTERM, "fast": syscall.SIGINT, "immediate": syscall.SIGQUIT}[mode]
	if !ok {
		return fmt.Errorf("stop Postgres: mode %q is none of smart, fast, immediate", mode)
	}
	p := s.running()
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	_ = p.cmd.Process.Signal(sig) // fails only where it has ended already
	if err := p.wait(ctx); err != nil {
		return fmt.Errorf("stop Postgres (%s): %w%s", mode, err, s.logTail(0))
	}
	s.set(nil)
	return nil
}

// Kill ends the server and all its processes by SIGKILL and waits until they are gone.
func (s *Server) Kill() {
	if p := s.running(); p != nil {
		p.kill()
		s.set(nil)
	}
}

// Signal sends a signal to the postmaster.
func (s *Server) Signal(sig syscall.Signal) error {
	p := s.running()
	if p == nil {
		return errors.New("signal Postgres: it is stopped")
	}
	return p.cmd.Process.Signal(sig)
}

// Close stops the server and removes its folder. It may be called more than once.
func (s *Server) Close() {
	s.close.Do(func() {
		s.Kill()
		s.keeper.close()
		_ = os.RemoveAll(s.root) // the keeper has done it, unless somebody killed it
	})
}

// running is the server's process, nil where it was stopped or ended by itself.
func (s *Server) running() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		select {
		case <-s.proc.gone:
			return nil
		default:
		}
	}
	return s.proc
}

func (s *Server) set(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc = p
	s.keeper.watch(p)
}

// logTail is the end of the log, from an offset at the earliest, as the last part of an error's text.
func (s *Server) logTail(from int64) string {
	log, err := os.Open(s.LogPath())
	if err != nil {
		return ""
	}
	defer log.Close()
	const most = 3000
	if info, err := log.Stat(); err == nil {
		from = max(from, info.Size()-most)
	}
	tail, err := io.ReadAll(io.NewSectionReader(log, from, most))
	if err != nil || len(tail) == 0 {
		return ""
	}
	return "; its log ends:\n" + strings.TrimRight(strings.ToValidUTF8(string(tail), "?"), "\n")
}
