package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Querier is what reads the catalog: a connection or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// pooledKey marks, in a connection's custom data, one that goes through a pooler.
const pooledKey = "capture.pooled"

// Connect opens an ordinary session with the settings of [Begin] pinned for all of it. Through a pooler only
// transactions made by Begin have them: a setting for the session would stay with a server connection that the pooler
// gives to the application next. The error is an [Explain]ed one.
func Connect(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := connect(ctx, cfg)
	for c := cfg.Copy(); lift(err, &c.Config); {
		conn, err = connect(ctx, c)
	}
	if err != nil {
		return nil, Explain(fmt.Errorf("connect to %s: %w", address(&cfg.Config), err))
	}
	return conn, nil
}

func connect(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	pg := conn.PgConn()
	direct, err := pinDirect(ctx, pg)
	if err != nil {
		_ = pg.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	if !direct {
		pg.CustomData()[pooledKey] = true
	}
	return conn, nil
}

// pinDirect pins the session's settings, in one question, unless a pooler stands in between: a pooler hands out a process
// id of its own making, with which it knows whom a cancel request is for.
func pinDirect(ctx context.Context, pg *pgconn.PgConn) (direct bool, err error) {
	var set []string
	for _, s := range settings(pg) {
		set = append(set, fmt.Sprintf("pg_catalog.set_config(%s, %s, false)", QuoteLiteral(s[0]), QuoteLiteral(s[1])))
	}
	results, err := pg.Exec(ctx, fmt.Sprintf("SELECT CASE WHEN pg_catalog.pg_backend_pid() = %d THEN pg_catalog.concat(%s) END",
		pg.PID(), strings.Join(set, ", "))).ReadAll()
	if err != nil {
		return false, fmt.Errorf("set up the session: %w", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return false, errors.New("set up the session: the server's answer is not one row")
	}
	return results[0].Rows[0][0] != nil, nil
}

// limits are the settings of a role or database that may end a session before it is set up, by the error that tells.
var limits = map[string]string{
	"57014": "statement_timeout",
	"25P03": "idle_in_transaction_session_timeout",
	"57P05": "idle_session_timeout",
	"25P04": "transaction_timeout",
}

// lift has a session start without the limit that err is about, where that may help. It is not done without need: not
// every server has every limit, and poolers refuse to pass them on.
func lift(err error, c *pgconn.Config) bool {
	var pg *pgconn.PgError
	if !errors.As(err, &pg) || limits[pg.Code] == "" || c.RuntimeParams[limits[pg.Code]] == "0" {
		return false
	}
	c.RuntimeParams[limits[pg.Code]] = "0"
	return true
}

// ConnectReplication opens a replication connection to the database, with the same settings as [Connect]: a walsender's
// own settings shape the text that pgoutput sends. It understands the simple query protocol only.
func ConnectReplication(ctx context.Context, cfg *pgx.ConnConfig) (*pgconn.PgConn, error) {
	c := cfg.Config.Copy()
	c.RuntimeParams["replication"] = "database"
	pg, err := connectReplication(ctx, c)
	for lift(err, c) {
		pg, err = connectReplication(ctx, c)
	}
	if err != nil {
		return nil, Explain(fmt.Errorf("connect for replication to %s: %w", address(c), err))
	}
	return pg, nil
}

func connectReplication(ctx context.Context, c *pgconn.Config) (*pgconn.PgConn, error) {
	pg, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := pinSender(ctx, pg); err != nil {
		_ = pg.Close(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("set up the session: %w", err)
	}
	return pg, nil
}

// How long a walsender waits for a word of ours: what the server has set (wal_sender_timeout), but never for ever, so that
// the slot of a capture that is frozen is dropped.
const (
	defaultWALSenderTimeout = time.Minute
	walSenderTimeoutKey     = "capture.wal_sender_timeout"
)

// WALSenderTimeout is how long the server waits for a word over a replication connection before it ends it.
func WALSenderTimeout(pg *pgconn.PgConn) time.Duration {
	waits, _ := pg.CustomData()[walSenderTimeoutKey].(time.Duration)
	return waits
}

func pinSender(ctx context.Context, pg *pgconn.PgConn) error {
	results, err := pg.Exec(ctx, settingsSQL(pg, "SET ")+fmt.Sprintf(`;
		SELECT pg_catalog.set_config(name, CASE setting WHEN '0' THEN '%d' ELSE setting END, false)
			FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout';
		SELECT setting FROM pg_catalog.pg_settings WHERE name = 'wal_sender_timeout'`, defaultWALSenderTimeout.Milliseconds())).ReadAll()
	if err != nil {
		return err
	}
	last := results[len(results)-1]
	if len(last.Rows) != 1 {
		return errors.New("the server does not say its wal_sender_timeout")
	}
	waits, err := strconv.ParseInt(string(last.Rows[0][0]), 10, 64)
	if err != nil {
		return fmt.Errorf("wal_sender_timeout: %w", err)
	}
	pg.CustomData()[walSenderTimeoutKey] = time.Duration(waits) * time.Millisecond
	return nil
}

// Pooled says whether conn goes through a pooler such as PgBouncer, where sessions keep nothing between transactions.
func Pooled(conn *pgx.Conn) bool {
	return conn.PgConn().CustomData()[pooledKey] == true
}

// Begin starts a transaction whose settings make every value print as row_to_json at TimeZone UTC needs it, whatever
// the server, database or role say. mode is what follows BEGIN, "ISOLATION LEVEL REPEATABLE READ READ ONLY" say.
func Begin(ctx context.Context, conn *pgx.Conn, mode string) (pgx.Tx, error) {
	begin := "BEGIN " + mode
	if Pooled(conn) {
		begin += "; " + settingsSQL(conn.PgConn(), "SET LOCAL ")
	}
	return conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: begin})
}

// settingsSQL is the statements that pin the session, for the server at the other end.
func settingsSQL(pg *pgconn.PgConn, set string) string {
	var statements []string
	for _, s := range settings(pg) {
		statements = append(statements, set+s[0]+" = "+QuoteLiteral(s[1]))
	}
	return strings.Join(statements, "; ")
}

// settings are the names and values of what is pinned.
func settings(pg *pgconn.PgConn) [][2]string {
	// A SQL_ASCII database knows no characters and refuses to send bytes that are no UTF-8 to a client that wants it.
	encoding := "UTF8"
	if pg.ParameterStatus("server_encoding") == "SQL_ASCII" {
		encoding = "SQL_ASCII"
	}
	list := [][2]string{
		{"client_encoding", encoding},
		{"standard_conforming_strings", "on"},
		// How values are read, where the server is asked about one.
		{"array_nulls", "on"}, {"transform_null_equals", "off"}, {"xmloption", "content"},
		// How values print.
		{"DateStyle", "ISO, MDY"}, {"IntervalStyle", "postgres"}, {"TimeZone", "UTC"},
		{"bytea_output", "hex"}, {"extra_float_digits", "1"}, {"quote_all_identifiers", "off"},
		// What a role's settings must not cut off; callers set their own limits.
		{"statement_timeout", "0"}, {"lock_timeout", "0"}, {"idle_in_transaction_session_timeout", "0"},
		{"default_transaction_isolation", "read committed"}, {"default_transaction_deferrable", "off"},
		{"jit", "off"}, // compiling would take longer than our queries on the catalog
		// An error instead of a silent subset where a policy would hide rows.
		{"row_security", "off"},
	}
	version := majorVersion(pg.ParameterStatus("server_version"))
	if version >= 14 {
		list = append(list, [2]string{"idle_session_timeout", "0"})
	}
	if version >= 17 {
		list = append(list, [2]string{"transaction_timeout", "0"})
	}
	return list
}

// majorVersion reads the leading number of "15.4 (Debian …)" or "18beta1"; 0 where there is none.
func majorVersion(s string) int {
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		s = s[:end]
	}
	n, _ := strconv.Atoi(s)
	return n
}

// address names the server and database for people, without user or password.
func address(c *pgconn.Config) string {
	host := c.Host
	if !strings.HasPrefix(host, "/") && strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	database := c.Database
	if database == "" {
		database = c.User
	}
	return fmt.Sprintf("%s:%d/%s", host, c.Port, database)
}
