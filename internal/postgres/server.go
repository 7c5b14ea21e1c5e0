package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"capture/internal/foreign"
)

// OffersTLS reports whether the server accepts connections with TLS.
func OffersTLS(ctx context.Context, q Querier) (offers bool, err error) {
	err = Pinned(q).QueryRow(ctx, "SELECT pg_catalog.current_setting('ssl')::bool").Scan(&offers)
	if err != nil {
		err = Explain(fmt.Errorf("query whether the server has TLS: %w", err))
	}
	return offers, err
}

// MinVersion is the oldest server version that capture follows, as in server_version_num.
const MinVersion = 130000

// Server describes the server and the connection's database, as far as an ordinary user can see them.
type Server struct {
	VersionNum int    // server_version_num: 150004
	Version    string // server_version: "15.4 (Debian 15.4-1)"
	SystemID   string // the cluster's system identifier; empty if the user may not see it
	Timeline   int    // the timeline of the last checkpoint; 0 if the user may not see it
	Address    string // host, port and database of this server, without user and password
	Started    int64  // start time in microseconds since 1970; 0 unless LoadServerStart has returned it
	Database   string
	User       string
	Superuser  bool // whether the user is a superuser
	Encoding   string
	InRecovery bool   // whether the server is a standby, or still recovering
	WALLevel   string // wal_level, as configured

	MaxSlots, UsedSlots     int
	MaxSenders, UsedSenders int
	MaxSlotWALKeepMB        int  // max_slot_wal_keep_size in MB; -1 means no limit
	Pooled                  bool // whether the connection goes through a pooler
}

// serverSQL reads a Server. It calls functions directly, not through views such as pg_settings. The server needs more time
// for one such view than for the rest of the query, in particular in a new session.
const serverSQL = `
	SELECT pg_catalog.current_setting('server_version_num')::int, pg_catalog.current_setting('server_version'),
		pg_catalog.current_database(), current_user::text,
		COALESCE((SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user), false), pg_catalog.current_setting('server_encoding'),
		pg_catalog.pg_is_in_recovery(), pg_catalog.current_setting('wal_level'),
		pg_catalog.current_setting('max_replication_slots')::int,
		(SELECT count(*) FROM pg_catalog.pg_get_replication_slots())::int,
		pg_catalog.current_setting('max_wal_senders')::int,
		(SELECT count(*) FROM pg_catalog.pg_stat_get_wal_senders())::int,
		COALESCE(pg_catalog.pg_size_bytes(NULLIF(pg_catalog.current_setting('max_slot_wal_keep_size', true), '-1')) / 1048576, -1)::int`

func (s *Server) scanRow(row pgx.Row) error {
	err := row.Scan(&s.VersionNum, &s.Version, &s.Database, &s.User, &s.Superuser, &s.Encoding, &s.InRecovery, &s.WALLevel,
		&s.MaxSlots, &s.UsedSlots, &s.MaxSenders, &s.UsedSenders, &s.MaxSlotWALKeepMB)
	if err != nil {
		return Explain(fmt.Errorf("query the server's settings: %w", err))
	}
	s.Version, s.Encoding, s.WALLevel = foreign.Text(s.Version), foreign.Text(s.Encoding), foreign.Text(s.WALLevel)
	return nil
}

// LoadServer queries the server about itself. conn must not be in a transaction.
func LoadServer(ctx context.Context, conn *pgx.Conn) (Server, error) {
	s := Server{Pooled: Pooled(conn), Address: answeringAddress(ctx, conn)}
	if err := s.scanRow(Pinned(conn).QueryRow(ctx, serverSQL)); err != nil {
		return Server{}, err
	}
	// Some managed services do not let users read the control file. In this case, SystemID and Timeline stay empty.
	err := Pinned(conn).QueryRow(ctx, `SELECT s.system_identifier::text, c.timeline_id
		FROM pg_catalog.pg_control_system() s, pg_catalog.pg_control_checkpoint() c`).Scan(&s.SystemID, &s.Timeline)
	if err != nil && !IsDenied(err) {
		return Server{}, Explain(fmt.Errorf("query the system identifier: %w", err))
	}
	return s, nil
}

// LoadServerAndTable does the work of [LoadServer] and [LoadTable], usually in one round trip, but does not load SystemID and
// Timeline. If the error is a [*Problem] about the table, the returned Server is valid.
func LoadServerAndTable(ctx context.Context, conn *pgx.Conn, name Name) (s Server, t *Table, err error) {
	s.Pooled, s.Address = Pooled(conn), answeringAddress(ctx, conn)
	var serverErr error
	var row catalogRow
	queryServer := func(b *pgx.Batch) {
		b.Queue(serverSQL).QueryRow(func(r pgx.Row) error { serverErr = s.scanRow(r); return serverErr })
	}
	err = row.read(ctx, conn, name, true, queryServer, nil)
	switch {
	case serverErr != nil:
		return Server{}, nil, serverErr
	case s.VersionNum > 0 && s.VersionNum < MinVersion:
		return s, nil, s.checkLogicalReplication()
	case err != nil && !row.done: // the connection failed
		return Server{}, nil, Explain(fmt.Errorf("query the server's settings: %w", err))
	}
	if t, err = row.newTable(ctx, conn, name, err); err == nil {
		err = t.checkReadable()
	}
	if err != nil {
		return s, nil, err
	}
	return s, t, nil
}

// checkLogicalReplication returns nil if this server can publish tables, otherwise a [*Problem]. It does not check whether the
// user may replicate, because only an attempt to connect shows that: see [ConnectReplication].
func (s *Server) checkLogicalReplication() error {
	switch {
	case s.VersionNum < MinVersion:
		return problemf("capture follows PostgreSQL 13 and later", "upgrade the server", "the server is PostgreSQL %s", s.Version)
	case s.InRecovery:
		return problemf("a standby cannot publish tables", "point --database-url at the primary",
			"the server is a standby or still recovering")
	case s.WALLevel != "logical" && !s.decodesOnDemand():
		need := "logical replication needs wal_level = logical"
		if s.VersionNum >= decodingOnDemandVersion {
			need += ", or replica, at which the first logical slot enables logical decoding"
		}
		return problemf(need, "ALTER SYSTEM SET wal_level = logical; -- then restart the server", "wal_level is %s", s.WALLevel)
	}
	return nil
}

// decodingOnDemandVersion is the first version that allows logical slots with wal_level = replica. The first logical slot then
// enables logical decoding for the whole server. The server disables it soon after the last slot is gone. The setting
// effective_wal_level shows the current state.
const decodingOnDemandVersion = 190000

// decodesOnDemand reports whether logical decoding is enabled only while a logical slot exists.
func (s *Server) decodesOnDemand() bool {
	return s.VersionNum >= decodingOnDemandVersion && s.WALLevel == "replica"
}

// CheckStandbys returns a [*Problem] if logical slots on a standby could become invalid when capture's slot is dropped. The
// server drops capture's slot whenever capture's connection is lost. If logical decoding is enabled only while a logical slot
// exists, the primary disables it after its last logical slot is dropped. The logical slots on standbys then become invalid.
func (s *Server) CheckStandbys(ctx context.Context, q Querier) error {
	if !s.decodesOnDemand() {
		return nil
	}
	// The query finds standbys by their physical replication connections, which have no database. Every user may see these
	// connections. But only a privileged user sees which of them belong to a base backup. So for other users, a base backup
	// counts as a standby.
	var standbys string
	err := Pinned(q).QueryRow(ctx, `
		SELECT COALESCE(pg_catalog.string_agg(COALESCE(NULLIF(a.application_name, ''), 'unnamed'), ', ' ORDER BY a.pid), '')
		FROM pg_catalog.pg_stat_replication r JOIN pg_catalog.pg_stat_activity a ON a.pid = r.pid
		WHERE a.datid IS NULL AND COALESCE(r.state, '') <> 'backup'`).Scan(&standbys)
	switch {
	case err != nil:
		return Explain(fmt.Errorf("query the standbys: %w", err))
	case standbys == "":
		return nil
	}
	return problemf("when the server's last logical slot goes, logical slots on standbys become invalid, and capture's slot goes with each connection",
		"ALTER SYSTEM SET wal_level = logical; -- then restart the server; or accept that with --source logical",
		"wal_level is replica, and a standby is connected (%s)", foreign.Text(standbys))
}
