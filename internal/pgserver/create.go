package pgserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"syscall"
)

// newServer creates the server's folder and starts the reaper, which removes the folder even if this process is killed.
func newServer(bin, parent string) (*Server, error) {
	s := &Server{bin: bin}
	var err error
	if s.bin == "" {
		if s.bin, err = Bin(); err != nil {
			return nil, err
		}
	}
	if s.credential, err = serverUser(); err != nil {
		return nil, err
	}
	if s.root, err = os.MkdirTemp(parent, "capture-postgres-"); err != nil {
		return nil, err
	}
	if s.root, err = filepath.Abs(s.root); err == nil {
		err = errors.Join(s.chownToServer(s.root), s.checkParentAccess())
	}
	if err == nil {
		s.reaper, err = startReaper(s.root)
	}
	if err != nil {
		_ = os.RemoveAll(s.root)
		return nil, err
	}
	return s, nil
}

// createCluster creates a new cluster and starts it. It copies the template, or runs initdb if template is "".
func (s *Server) createCluster(ctx context.Context, o Options, template string) error {
	if template != "" {
		if err := s.copyTemplate(ctx, template); err != nil {
			return err
		}
	} else if err := s.runInitdb(ctx, o.Initdb); err != nil {
		return err
	}
	settings := s.defaultSettings(o.Durable)
	maps.Copy(settings, o.Settings)
	if err := s.appendSettings(settings); err != nil {
		return err
	}
	return s.startOnPort(ctx, o.Port)
}

// startOnPort starts the server on a port. If port is 0, it chooses a free port, and tries another one if somebody takes the
// port before the server binds it.
func (s *Server) startOnPort(ctx context.Context, port int) error {
	for attempt := 1; ; attempt++ {
		s.port = port
		if port == 0 {
			var err error
			if s.port, err = FreePort(); err != nil {
				return err
			}
		}
		if err := s.appendSettings(map[string]string{"port": strconv.Itoa(s.port)}); err != nil {
			return err
		}
		err := s.StartAgain(ctx)
		if err == nil || port != 0 || attempt == 10 || !errors.Is(err, errPortTaken) {
			return err
		}
	}
}

func (s *Server) runInitdb(ctx context.Context, flags []string) error {
	args := slices.Concat([]string{"--pgdata=" + s.Dir()}, initdbFlags(), flags)
	p, err := startProcess(s.LogPath(), s.credential, filepath.Join(s.bin, "initdb"), args...)
	if err != nil {
		return fmt.Errorf("run initdb: %w", err)
	}
	s.reaper.setTarget(p)
	defer s.reaper.setTarget(nil)
	if err := p.waitExit(ctx); err != nil {
		p.killTree()
		return fmt.Errorf("run initdb: %w", err)
	}
	if !p.cmd.ProcessState.Success() {
		return fmt.Errorf("run initdb: %s%s", p.cmd.ProcessState, s.logTail(0))
	}
	return nil
}

// initdbFlags returns the flags of initdb that are the same for all clusters.
func initdbFlags() []string {
	locale := "C.UTF-8"
	if runtime.GOOS != "linux" {
		locale = "C" // this locale exists on every system
	}
	return []string{"--username=postgres", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=" + locale}
}

// socketDir returns the folder of the Unix socket, or "" if the socket's path would be too long for the system. The server then
// has no socket.
func (s *Server) socketDir() string {
	if len(s.root) > 80 {
		return ""
	}
	return s.root
}

// chownToServer makes the server's user the owner of a file.
func (s *Server) chownToServer(path string) error {
	if s.credential == nil {
		return nil
	}
	return os.Lchown(path, int(s.credential.Uid), int(s.credential.Gid))
}

// checkParentAccess checks that the server's user may enter every parent folder of the server's folder. The error of initdb
// would not name the folder that the user may not enter.
func (s *Server) checkParentAccess() error {
	if s.credential == nil {
		return nil
	}
	for dir := filepath.Dir(s.root); ; dir = filepath.Dir(dir) {
		info, err := os.Stat(dir)
		if err != nil {
			return err
		}
		if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != s.credential.Uid && info.Mode()&0o001 == 0 {
			return fmt.Errorf("%s is closed to the user that Postgres runs as (uid %d, because it refuses to run as root): "+
				"`chmod o+x` it, or choose another folder with TMPDIR", dir, s.credential.Uid)
		}
		if dir == filepath.Dir(dir) {
			return nil
		}
	}
}
