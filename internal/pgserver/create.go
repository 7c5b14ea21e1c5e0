package pgserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"syscall"
)

// prepare makes the server's folder and the keeper that will remove it.
func prepare(bin, parent string) (*Server, error) {
	s := &Server{bin: bin}
	var err error
	if s.bin == "" {
		if s.bin, err = Bin(); err != nil {
			return nil, err
		}
	}
	if s.as, err = account(); err != nil {
		return nil, err
	}
	if s.root, err = os.MkdirTemp(parent, "capture-postgres-"); err != nil {
		return nil, err
	}
	if s.root, err = filepath.Abs(s.root); err == nil {
		err = errors.Join(s.own(s.root), s.reachable())
	}
	if err == nil {
		s.keeper, err = startKeeper(s.root)
	}
	if err != nil {
		_ = os.RemoveAll(s.root)
		return nil, err
	}
	return s, nil
}

// create makes a new cluster and starts it on a port that is free.
func (s *Server) create(ctx context.Context, o Options) error {
	if err := s.initdb(ctx, o.Initdb); err != nil {
		return err
	}
	settings := map[string]string{
		"listen_addresses":          "127.0.0.1",
		"unix_socket_directories":   s.socketDir(),
		"wal_level":                 "logical",
		"max_wal_senders":           "20",
		"max_replication_slots":     "20",
		"max_prepared_transactions": "10",
		"shared_buffers":            "32MB",
		"jit":                       "off",
		"cluster_name":              "primary",
		"log_line_prefix":           "%m [%p] %a ",
	}
	if !o.Durable {
		settings["fsync"] = "off"
	}
	maps.Copy(settings, o.Settings)
	if err := s.configure(settings); err != nil {
		return err
	}
	return s.startOnPort(ctx, o.Port)
}

// startOnPort starts the server on the port, or on a free one for 0, another one if somebody took it meanwhile.
func (s *Server) startOnPort(ctx context.Context, port int) error {
	for attempt := 1; ; attempt++ {
		s.port = port
		if port == 0 {
			var err error
			if s.port, err = freePort(); err != nil {
				return err
			}
		}
		if err := s.configure(map[string]string{"port": strconv.Itoa(s.port)}); err != nil {
			return err
		}
		err := s.StartAgain(ctx)
		if err == nil || port != 0 || attempt == 10 || !errors.Is(err, errPortTaken) {
			return err
		}
	}
}

func (s *Server) initdb(ctx context.Context, flags []string) error {
	locale := "C.UTF-8"
	if runtime.GOOS != "linux" {
		locale = "C" // the one that is everywhere
	}
	args := []string{"--pgdata=" + s.Dir(), "--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=" + locale}
	p, err := launch(s.LogPath(), s.as, filepath.Join(s.bin, "initdb"), append(args, flags...)...)
	if err != nil {
		return fmt.Errorf("run initdb: %w", err)
	}
	s.keeper.watch(p)
	defer s.keeper.watch(nil)
	if err := p.wait(ctx); err != nil {
		p.kill()
		return fmt.Errorf("run initdb: %w", err)
	}
	if !p.cmd.ProcessState.Success() {
		return fmt.Errorf("run initdb: %s%s", p.cmd.ProcessState, s.logTail(0))
	}
	return nil
}

// socketDir is where the unix socket goes: nowhere if the path would be longer than a socket's may be.
func (s *Server) socketDir() string {
	if len(s.root) > 80 {
		return ""
	}
	return s.root
}

// freePort finds a port that nobody listens on, below those that the system hands to outgoing connections: while the
// server is stopped none of them can take its port, and no client that dials it can end up connected to itself.
func freePort() (int, error) {
	var err error
	for range 100 {
		port := 15000 + rand.IntN(17000)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("find a free port: %w", err)
}

// own gives a file to the server's user.
func (s *Server) own(path string) error {
	if s.as == nil {
		return nil
	}
	return os.Lchown(path, int(s.as.Uid), int(s.as.Gid))
}

// reachable checks that the server's user may enter the folders above its own; initdb's word for that is hard to place.
func (s *Server) reachable() error {
	if s.as == nil {
		return nil
	}
	for dir := filepath.Dir(s.root); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != s.as.Uid && info.Mode()&0o001 == 0 {
			return fmt.Errorf("%s is closed to the user that Postgres runs as (uid %d, as it refuses to run as root): "+
				"`chmod o+x` it, or choose another folder (TMPDIR)", dir, s.as.Uid)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
