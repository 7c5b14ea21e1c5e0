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

// defaultSettings returns the settings of a new cluster. A test can override them with Options.Settings.
func (s *Server) defaultSettings(durable bool) map[string]string {
	settings := map[string]string{
		"listen_addresses":          "127.0.0.1",
		"unix_socket_directories":   s.socketDir(),
		"wal_level":                 "logical",
		"max_wal_senders":           "20",
		"max_replication_slots":     "20",
		"max_prepared_transactions": "10",
		"shared_buffers":            "32MB",
		"jit":                       "off",
		// The default, posix, leaves segments in /dev/shm if the server is killed. With mmap, the segments are files in the
		// data folder, which Close removes.
		"dynamic_shared_memory_type": "mmap",
		"cluster_name":               "primary",
		"log_line_prefix":            "%m [%p] %a ",
	}
	if !durable {
		settings["fsync"] = "off"
	}
	return settings
}

// appendSettings appends settings to postgresql.conf. The last value of a setting wins.
func (s *Server) appendSettings(settings map[string]string) error {
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

// Reload changes settings, which may be nil, and makes the server read its configuration files. It returns once new sessions
// have the settings. Existing sessions apply them at their next statement.
func (s *Server) Reload(ctx context.Context, settings map[string]string) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	before, err := s.configLoadTime(ctx)
	if err != nil {
		return fmt.Errorf("reload Postgres: %w", err)
	}
	if err := s.appendSettings(settings); err != nil {
		return fmt.Errorf("reload Postgres: %w", err)
	}
	if err := s.Signal(syscall.SIGHUP); err != nil {
		return fmt.Errorf("reload Postgres: %w", err)
	}
	for {
		if now, err := s.configLoadTime(ctx); err == nil && now.After(before) {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("reload Postgres: %w%s", ctx.Err(), s.logTail(0))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// configLoadTime opens a session and returns the time at which the session's configuration was loaded.
func (s *Server) configLoadTime(ctx context.Context) (at time.Time, err error) {
	conn, err := s.connectTo(ctx, "postgres")
	if err != nil {
		return at, err
	}
	defer conn.Close(ctx)
	err = conn.QueryRow(ctx, "SELECT pg_conf_load_time()").Scan(&at)
	return at, err
}

// WriteFile writes a file to the data folder, such as a certificate or pg_hba.conf. Only the server's user may read it.
func (s *Server) WriteFile(name string, content []byte) error {
	path := filepath.Join(s.Dir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return err
	}
	return s.chownToServer(path)
}
