package pgserver

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// configure appends settings to postgresql.conf, where the last one of a name counts.
func (s *Server) configure(settings map[string]string) error {
	quote := strings.NewReplacer(`'`, `''`, `\`, `\\`)
	var lines strings.Builder
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		fmt.Fprintf(&lines, "%s = '%s'\n", name, quote.Replace(settings[name]))
	}
	conf, err := os.OpenFile(filepath.Join(s.Dir(), "postgresql.conf"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return err
	}
	_, err = conf.WriteString(lines.String())
	return errors.Join(err, conf.Close())
}

// Reload changes settings (nil for none), has the server read its configuration files, and returns once new sessions
// have them. Those that exist take them up with their next statement.
func (s *Server) Reload(ctx context.Context, settings map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	before, err := s.loaded(ctx)
	if err != nil {
		return fmt.Errorf("reload Postgres: %w", err)
	}
	if err := s.configure(settings); err != nil {
		return fmt.Errorf("reload Postgres: %w", err)
	}
	if err := s.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("reload Postgres: %w", err)
	}
	for {
		if now, err := s.loaded(ctx); err == nil && now.After(before) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("reload Postgres: %w%s", ctx.Err(), s.logTail(0))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// loaded is when the server last read its configuration, as a new session sees it.
func (s *Server) loaded(ctx context.Context) (at time.Time, err error) {
	conn, err := s.connect(ctx, "postgres")
	if err != nil {
		return at, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&at)
	return at, err
}

// WriteFile puts a file (a certificate, pg_hba.conf) into the data folder, for the server's user only.
func (s *Server) WriteFile(name string, content []byte) error {
	path := filepath.Join(s.Dir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	return s.own(path)
}
