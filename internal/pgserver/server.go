// Package pgserver runs temporary Postgres servers for the demo, the tests and the benchmarks. It uses the server programs
// that are installed on the machine (PostgreSQL 13 to 19).
//
// [Start] creates a cluster in a temporary folder and starts it on a free port of the loopback interface. Logical
// replication is enabled, and no password is needed. [Server.Close] stops the server and removes the folder. If this process
// dies first, even by SIGKILL, the reaper stops the server and removes the folder. The reaper is a shell script that Start
// runs in a separate process.
//
// The tests of a package share a cluster, and each test has a database of its own:
//
//	func TestMain(m *testing.M) { os.Exit(pgserver.Main(m.Run)) }
//
//	func TestVotes(t *testing.T) { url := pgserver.Database(t) … }
//
// A test that stops, kills or reconfigures a server starts its own with [ForTest]. Package faultproxy has a proxy that
// cuts, stalls or slows connections.
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
	"golang.org/x/sys/unix"
)

// Options configure a server. The zero value is the usual configuration.
type Options struct {
	Settings map[string]string // settings for postgresql.conf, unquoted
	Initdb   []string          // more flags for initdb, such as "--encoding=LATIN1"
	Dir      string            // parent of the server's folder; the default is os.TempDir(). If this process is root, other users must be able to enter Dir, which t.TempDir() does not allow
	Port     int               // TCP port; the default is a free port
	Bin      string            // folder of the server programs; the default is the result of [Bin]
	Durable  bool              // whether fsync is on, which is slower
}

// Server is a Postgres server that this process has started. Its methods may be called from any goroutine. The caller must not
// start and stop the server at the same time.
type Server struct {
	bin        string
	root       string // folder with data, socket and log
	port       int
	version    int
	credential *syscall.Credential // user that the programs run as; nil means the user of this process
	reaper     *reaper
	close      sync.Once

	mu   sync.Mutex
	proc *process // nil while stopped
}

var errPortTaken = errors.New("the port is taken")

// Start creates a server and returns when it accepts connections. ctx limits the start only: the server runs until Close.
func Start(ctx context.Context, o Options) (*Server, error) { return startCopy(ctx, o, "") }

// startCopy starts a server on a copy of the template, or on a cluster that initdb creates if template is "".
func startCopy(ctx context.Context, o Options, template string) (*Server, error) {
	s, err := newServer(o.Bin, o.Dir)
	if err != nil {
		return nil, fmt.Errorf("start a Postgres server: %w", err)
	}
	if err := s.createCluster(ctx, o, template); err != nil {
		s.Close()
		return nil, fmt.Errorf("start a Postgres server: %w", err)
	}
	return s, nil
}

// StartAgain starts a stopped or killed server with its old data and port, and returns when it accepts connections.
func (s *Server) StartAgain(ctx context.Context) error {
	if s.runningProcess() != nil {
		return errors.New("start Postgres: it is running")
	}
	var logged int64
	if info, err := os.Stat(s.LogPath()); err == nil {
		logged = info.Size()
	}
	p, err := startProcess(s.LogPath(), s.credential, filepath.Join(s.bin, "postgres"), "-D", s.Dir())
	if err != nil {
		return fmt.Errorf("start Postgres: %w", err)
	}
	s.setProcess(p)
	err = s.waitReady(ctx, p)
	if err == nil {
		return nil
	}
	select {
	case <-p.exited:
	default:
		p.killTree()
	}
	s.setProcess(nil)
	tail := s.logTail(logged)
	if strings.Contains(tail, "could not bind") {
		return fmt.Errorf("start Postgres on port %d: %w%s", s.port, errPortTaken, tail)
	}
	return fmt.Errorf("start Postgres: %w%s", err, tail)
}

// waitReady waits until the server accepts connections.
func (s *Server) waitReady(ctx context.Context, p *process) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	// If another process holds the port and never answers, checkIdentity would wait for a long time. But the new server
	// then exits, because it cannot use the port. The goroutine notices the exit and cancels checkIdentity's context.
	running, stop := context.WithCancel(ctx)
	defer stop()
	go func() {
		defer stop()
		_ = p.waitExit(running)
	}()
	for {
		last := s.checkIdentity(running)
		if last == nil {
			return nil
		}
		select {
		case <-running.Done():
		case <-time.After(20 * time.Millisecond):
			continue
		}
		if ctx.Err() != nil {
			return fmt.Errorf("it does not accept connections: %w", last)
		}
		<-p.exited
		return errors.New(p.cmd.ProcessState.String())
	}
}

// checkIdentity checks that this server, not another one, answers on the port. It stores the server's version.
func (s *Server) checkIdentity(ctx context.Context) error {
	conn, err := s.connectTo(ctx, "postgres")
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
	if s.version == 0 { // written only once, because another goroutine may read it during StartAgain
		s.version = version
	}
	return nil
}

func (s *Server) connectTo(ctx context.Context, database string) (*pgx.Conn, error) {
	cfg, err := pgx.ParseConfig(s.URL(database))
	if err != nil {
		return nil, err
	}
	// PGOPTIONS and similar variables in the environment of this process must not affect this connection.
	cfg.RuntimeParams = map[string]string{"application_name": "pgserver"}
	cfg.ConnectTimeout = 10 * time.Second
	return pgx.ConnectConfig(ctx, cfg)
}

// URL returns the URL of a database, for the superuser postgres.
func (s *Server) URL(database string) string { return URL(s.Addr(), database) }

// URL returns the URL of a database on the server at addr (host:port), for the superuser postgres.
func URL(addr, database string) string {
	u := url.URL{Scheme: "postgres", User: url.User("postgres"), Host: addr, Path: database, RawQuery: "sslmode=disable"}
	return u.String()
}

// Addr returns the server's host and port.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Port returns the server's TCP port on 127.0.0.1. It stays the same after StartAgain.
func (s *Server) Port() int { return s.port }

// Dir returns the data folder.
func (s *Server) Dir() string { return filepath.Join(s.root, "data") }

// LogPath returns the path of the server's log.
func (s *Server) LogPath() string { return filepath.Join(s.root, "log") }

// VersionNum returns the server's version in the form of server_version_num, such as 150018 for 15.18.
func (s *Server) VersionNum() int { return s.version }

// PID returns the PID of the postmaster, or 0 while the server is stopped.
func (s *Server) PID() int {
	if p := s.runningProcess(); p != nil {
		return p.cmd.Process.Pid
	}
	return 0
}

// Stop shuts the server down in one of the modes of pg_ctl, and waits until the server has exited. The mode "smart" waits
// until the clients disconnect, "fast" disconnects them, and "immediate" crashes the server. If the server still runs after a
// minute, Stop returns an error.
func (s *Server) Stop(mode string) error {
	sig, ok := map[string]syscall.Signal{"smart": syscall.SIGTERM, "fast": syscall.SIGINT, "immediate": syscall.SIGQUIT}[mode]
	if !ok {
		return fmt.Errorf("stop Postgres: mode %q is not one of smart, fast, immediate", mode)
	}
	p := s.runningProcess()
	if p == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	_ = p.cmd.Process.Signal(sig) // fails only if the server has exited
	if err := p.waitExit(ctx); err != nil {
		return fmt.Errorf("stop Postgres (%s): %w%s", mode, err, s.logTail(0))
	}
	s.setProcess(nil)
	return nil
}

// Kill sends SIGKILL to the server and all its processes and waits until they have exited.
func (s *Server) Kill() {
	if p := s.runningProcess(); p != nil {
		p.killTree()
		s.setProcess(nil)
	}
}

// Signal sends a signal to the postmaster.
func (s *Server) Signal(sig syscall.Signal) error {
	p := s.runningProcess()
	if p == nil {
		return errors.New("signal Postgres: it is not running")
	}
	return p.cmd.Process.Signal(sig)
}

// Close ends the server and removes its folder. Further calls do nothing.
func (s *Server) Close() {
	s.close.Do(func() {
		if p := s.runningProcess(); p != nil && p.cmd.Process.Signal(syscall.SIGQUIT) == nil {
			ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
			_ = p.waitExit(ctx)
			cancel()
		}
		s.Kill()
		s.releaseSharedMemory()
		s.reaper.close()
		_ = os.RemoveAll(s.root) // in case the reaper was killed
	})
}

// releaseSharedMemory removes the segment of System V shared memory that a killed server has left. By default, Linux allows
// only 4096 segments. Line 7 of postmaster.pid has the key and the ID of the segment. A server that was not killed has
// removed both the file and the segment.
func (s *Server) releaseSharedMemory() {
	content, err := os.ReadFile(filepath.Join(s.Dir(), "postmaster.pid"))
	lines := strings.Split(string(content), "\n")
	if err != nil || len(lines) < 7 {
		return
	}
	var key, id int
	if _, err := fmt.Sscan(lines[6], &key, &id); err != nil {
		return
	}
	var segment unix.SysvShmDesc
	if _, err := unix.SysvShmCtl(id, unix.IPC_STAT, &segment); err == nil && segment.Nattch == 0 {
		_, _ = unix.SysvShmCtl(id, unix.IPC_RMID, nil)
	}
}

// runningProcess returns the server's process, or nil if it was stopped or has exited.
func (s *Server) runningProcess() *process {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.proc != nil {
		select {
		case <-s.proc.exited:
			return nil
		default:
		}
	}
	return s.proc
}

func (s *Server) setProcess(p *process) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.proc = p
	s.reaper.setTarget(p)
}

// logTail returns the end of the log as a suffix for an error. It omits everything before the given offset in the log.
func (s *Server) logTail(offset int64) string {
	log, err := os.Open(s.LogPath())
	if err != nil {
		return ""
	}
	defer log.Close()
	const most = 3000
	if info, err := log.Stat(); err == nil {
		offset = max(offset, info.Size()-most)
	}
	tail, err := io.ReadAll(io.NewSectionReader(log, offset, most))
	if err != nil || len(tail) == 0 {
		return ""
	}
	return "; its log ends with:\n" + strings.TrimRight(strings.ToValidUTF8(string(tail), "?"), "\n")
}
