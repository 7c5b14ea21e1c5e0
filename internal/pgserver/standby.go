package pgserver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Standby starts a streaming standby of the running server and returns when it accepts connections. The caller must close the
// standby. The standby's cluster_name is "standby", so the primary's synchronous_standby_names can name it.
func (s *Server) Standby(ctx context.Context) (*Server, error) {
	standby, err := newServer(s.bin, filepath.Dir(s.root))
	if err != nil {
		return nil, fmt.Errorf("start a standby: %w", err)
	}
	if err := s.startStandby(ctx, standby); err != nil {
		standby.Close()
		return nil, fmt.Errorf("start a standby: %w", err)
	}
	return standby, nil
}

// startStandby copies the data folder and starts the standby. It uses SQL functions for the backup, because not every
// package of the server contains pg_basebackup.
func (s *Server) startStandby(ctx context.Context, standby *Server) error {
	// The session stays open until the standby streams, because the session's temporary slot retains the WAL since the start
	// of the copy.
	conn, err := s.connectTo(ctx, "postgres")
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	slot := "standby_" + strings.ToLower(filepath.Base(standby.root)[len("capture-postgres-"):])
	if _, err := conn.Exec(ctx, "SELECT pg_create_physical_replication_slot($1, true, true)", slot); err != nil {
		return err
	}
	if err := s.takeBaseBackup(ctx, conn, standby); err != nil {
		return err
	}
	if err := standby.WriteFile("standby.signal", nil); err != nil {
		return err
	}
	err = standby.appendSettings(map[string]string{
		"primary_conninfo":        fmt.Sprintf("host=127.0.0.1 port=%d user=postgres sslmode=disable", s.port),
		"unix_socket_directories": standby.socketDir(),
		"cluster_name":            "standby",
	})
	if err != nil {
		return err
	}
	return standby.startOnPort(ctx, 0)
}

// takeBaseBackup takes a base backup of s into the standby's data folder.
func (s *Server) takeBaseBackup(ctx context.Context, conn *pgx.Conn, standby *Server) error {
	start, stop := "SELECT pg_backup_start('standby', true)", "SELECT labelfile FROM pg_backup_stop(false)"
	if s.version < 150000 {
		start, stop = "SELECT pg_start_backup('standby', true, false)", "SELECT labelfile FROM pg_stop_backup(false, false)"
	}
	if _, err := conn.Exec(ctx, start); err != nil {
		return err
	}
	if err := s.copyData(standby); err != nil {
		return err
	}
	var label string
	if err := conn.QueryRow(ctx, stop).Scan(&label); err != nil {
		return err
	}
	return standby.WriteFile("backup_label", []byte(label))
}

// copyData copies the data folder of a running server. Files may change or vanish during the copy. The standby repairs its
// copies of these files when it replays the WAL since the start of the backup.
func (s *Server) copyData(standby *Server) error {
	return filepath.WalkDir(s.Dir(), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(s.Dir(), path)
		if err != nil {
			return err
		}
		to := filepath.Join(standby.Dir(), rel)
		switch top, _, below := strings.Cut(rel, string(filepath.Separator)); {
		case entry.IsDir() && top == "pg_replslot" && below: // slots belong to the primary
			return fs.SkipDir
		case entry.IsDir():
			return errors.Join(os.Mkdir(to, 0o700), standby.chownToServer(to))
		case top == "postmaster.pid", top == "postmaster.opts", top == "pg_wal":
			return nil
		case !entry.Type().IsRegular():
			return fmt.Errorf("copy %s: it is not a regular file; tablespaces are not supported", rel)
		}
		return copyFile(path, to, standby.chownToServer)
	})
}

// copyFile copies a file and calls chown with the path of the copy. If the file has vanished, copyFile does nothing.
func copyFile(from, to string, chown func(path string) error) error {
	in, err := os.Open(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close(), chown(to))
}

// Promote promotes a standby, which starts a new timeline, and returns when it accepts writes.
func (s *Server) Promote(ctx context.Context) error {
	conn, err := s.connectTo(ctx, "postgres")
	if err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var done bool
	if err := conn.QueryRow(ctx, "SELECT pg_promote(true, 60)").Scan(&done); err != nil {
		return fmt.Errorf("promote: %w", err)
	}
	if !done {
		return fmt.Errorf("promote: not finished within a minute%s", s.logTail(0))
	}
	return nil
}
