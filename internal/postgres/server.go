package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// MinVersion is the oldest server version that capture follows, as server_version_num counts.
const MinVersion = 130000

// Server is what an ordinary user may know of the server and the database that a connection is for.
type Server struct {
	VersionNum int    // 150004
	Version    string // as SHOW server_version gives it
	SystemID   string // of the cluster; "" where the user may not see it
	Timeline   int    // of the last checkpoint; 0 where the user may not see it
	Database   string
	User       string
	Encoding   string
	InRecovery bool // a standby, or a server that is still recovering
	WALLevel   string

	MaxSlots, UsedSlots     int
	MaxSenders, UsedSenders int
	MaxSlotWALKeepMB        int // max_slot_wal_keep_size; -1 for no limit
	Pooled                  bool
}

const serverSQL = `
	SELECT pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_setting('server_version'),
		pg_catalog.current_database(), current_user::text, pg_catalog.current_setting('server_encoding'),
		pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('wal_level'),
		pg_catalog.current_setting('max_replication_slots')::int,
		(SELECT count(*) FROM pg_catalog.pg_replication_slots)::int,
		pg_catalog.current_setting('max_wal_senders')::int,
		(SELECT count(*) FROM pg_catalog.pg_stat_replication)::int,
		COALESCE((SELECT setting::int FROM pg_catalog.pg_settings WHERE name = 'max_slot_wal_keep_size'), -1)`

func (s *Server) scan(row pgx.Row) error {
	err := row.Scan(&s.VersionNum, &s.Version, &s.Database, &s.User, &s.Encoding, &s.InRecovery, &s.WALLevel,
		&s.MaxSlots, &s.UsedSlots, &s.MaxSenders, &s.UsedSenders, &s.MaxSlotWALKeepMB)
	if err != nil {
		return Explain(fmt.Errorf("ask the server about itself: %w", err))
	}
	return nil
}

// LoadServer asks the server about itself. conn must not be in a transaction.
func LoadServer(ctx context.Context, conn *pgx.Conn) (Server, error) {
	s := Server{Pooled: Pooled(conn)}
	if err := s.scan(conn.QueryRow(ctx, serverSQL)); err != nil {
		return Server{}, err
	}
	// Some managed services keep the control file to themselves.
	err := conn.QueryRow(ctx, `SELECT s.system_identifier::text, c.timeline_id
		FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c`).Scan(&s.SystemID, &s.Timeline)
	if err != nil && SQLState(err) != insufficientPrivilege {
		return Server{}, Explain(fmt.Errorf("ask the server who it is: %w", err))
	}
	return s, nil
}

// LoadServerAndTable is what [LoadServer] says, but for who the server is, and what [LoadTable] does, in one round trip. Where the table's
// error is a [*Problem], the Server is there nevertheless.
func LoadServerAndTable(ctx context.Context, conn *pgx.Conn, name Name) (s Server, t *Table, err error) {
	s.Pooled = Pooled(conn)
	var about, row error
	var c catalogRow
	b := &pgx.Batch{}
	b.Queue(serverSQL).QueryRow(func(r pgx.Row) error { about = s.scan(r); return about })
	b.Queue(catalogSQL, catalogArgs(name)...).QueryRow(func(r pgx.Row) error { row = c.scan(r); return row })
	err = conn.SendBatch(ctx, b).Close()
	switch {
	case about != nil:
		return Server{}, nil, about
	case s.VersionNum > 0 && s.VersionNum < MinVersion:
		return s, nil, s.checkLogical()
	case err != nil && row == nil: // the connection's
		return Server{}, nil, Explain(fmt.Errorf("ask the server about itself: %w", err))
	}
	if t, err = c.table(ctx, conn, name, row); err == nil {
		err = t.readable()
	}
	if err != nil {
		return s, nil, err
	}
	return s, t, nil
}
