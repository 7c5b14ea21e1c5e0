package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// setting is a setting of a session (a GUC) and its value.
type setting struct{ name, value string }

// sessionSettings returns the settings that capture pins in every session. They make each value print in one way whatever
// the server, the database or the role say, and keep the role's timeouts from ending a session.
func sessionSettings(pg *pgconn.PgConn) []setting {
	// A SQL_ASCII database knows no characters. To a client that expects UTF8 it refuses to send bytes that are not valid
	// UTF-8.
	encoding := "UTF8"
	if pg.ParameterStatus("server_encoding") == "SQL_ASCII" {
		encoding = "SQL_ASCII"
	}
	settings := []setting{
		// Nothing of another role may stand in for an operator, a function or a type of Postgres; see [Begin].
		{"search_path", ""},
		{"client_encoding", encoding},
		{"standard_conforming_strings", "on"},
		// How the server reads a value that it is asked about.
		{"array_nulls", "on"}, {"transform_null_equals", "off"}, {"xmloption", "content"},
		// How values print.
		{"DateStyle", "ISO, MDY"}, {"IntervalStyle", "postgres"}, {"TimeZone", "UTC"},
		{"bytea_output", "hex"}, {"extra_float_digits", "1"}, {"quote_all_identifiers", "off"},
		// A role's timeouts must not end a session. Callers set limits of their own.
		{"statement_timeout", "0"}, {"lock_timeout", "0"}, {"idle_in_transaction_session_timeout", "0"},
		{"default_transaction_isolation", "read committed"}, {"default_transaction_deferrable", "off"},
		// Compiling takes longer than the queries on the catalog do.
		{"jit", "off"},
		// An error instead of a silent subset of the rows where a policy hides some.
		{"row_security", "off"},
	}
	version := majorVersion(pg.ParameterStatus("server_version"))
	if version >= 14 {
		settings = append(settings, setting{"idle_session_timeout", "0"})
	}
	if version >= 17 {
		settings = append(settings, setting{"transaction_timeout", "0"})
	}
	return settings
}

// sessionSettingsSQL returns the statements that pin the session's settings. verb is "SET" or "SET LOCAL".
func sessionSettingsSQL(pg *pgconn.PgConn, verb string) string {
	var statements []string
	for _, s := range sessionSettings(pg) {
		statements = append(statements, verb+" "+s.name+" = "+QuoteLiteral(s.value))
	}
	return strings.Join(statements, "; ")
}

// setConfigSQL returns an expression that pins the session's settings: for the transaction if local, else for the session.
func setConfigSQL(pg *pgconn.PgConn, local bool) string {
	var calls []string
	for _, s := range sessionSettings(pg) {
		calls = append(calls, fmt.Sprintf("pg_catalog.set_config(%s, %s, %t)", QuoteLiteral(s.name), QuoteLiteral(s.value), local))
	}
	return "pg_catalog.concat(" + strings.Join(calls, ", ") + ")"
}

// pinUnlessPooled pins the settings of the session, unless the connection goes through a pooler, and reports whether it
// does. A pooler gives its clients a process ID of its own making, by which it knows whom a cancel request is for: it
// differs from the server's pg_backend_pid(). One query does both, so no setting ever stays with a pooler's connection.
func pinUnlessPooled(ctx context.Context, pg *pgconn.PgConn) (pooled bool, err error) {
	results, err := pg.Exec(ctx, fmt.Sprintf("SELECT CASE WHEN pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) %d THEN %s END",
		pg.PID(), setConfigSQL(pg, false))).ReadAll()
	if err != nil {
		return false, fmt.Errorf("set up the session: %w", err)
	}
	if len(results) != 1 || len(results[0].Rows) != 1 {
		return false, errors.New("set up the session: the server did not return one row")
	}
	return results[0].Rows[0][0] == nil, nil
}

// Begin starts a transaction in which the session's settings are pinned, also through a pooler. mode is what follows BEGIN,
// such as "ISOLATION LEVEL REPEATABLE READ READ ONLY".
//
// In every statement outside the transactions of a restore, the search path is empty, so that names without a schema are
// those of pg_catalog and no role can plant an operator or a function that fits better. The path is set here again because
// a function that the statements call, such as a cast's, may have changed it for the session.
func Begin(ctx context.Context, conn *pgx.Conn, mode string) (pgx.Tx, error) {
	begin := "BEGIN " + mode + "; "
	if Pooled(conn) {
		begin += sessionSettingsSQL(conn.PgConn(), "SET LOCAL")
	} else {
		begin += EmptySearchPath
	}
	return conn.BeginTx(ctx, pgx.TxOptions{BeginQuery: begin})
}

const (
	// EmptySearchPath is a statement that empties the search path for the rest of the transaction.
	EmptySearchPath = "SET LOCAL search_path = ''"
	// OwnSearchPath is a statement that gives the rest of the transaction the session's own search path: that of the URL, the
	// role, the database or the server. Statements that run with it must name the schema of everything in them, of operators
	// too.
	OwnSearchPath = "SET LOCAL search_path TO DEFAULT"
)

// Pinned returns a Querier whose statements run with the session's settings. That is q itself, unless q is a connection
// through a pooler: then the settings are sent with each statement.
func Pinned(q Querier) Querier {
	if conn, ok := q.(*pgx.Conn); ok && Pooled(conn) {
		return pooledQuerier{conn}
	}
	return q
}

// pooledQuerier sends each statement in a batch after a query that sets the settings locally. Outside of a transaction block
// the batch is a transaction of its own: Postgres ends it, and with it the local settings, at the message Sync.
type pooledQuerier struct{ conn *pgx.Conn }

func (q pooledQuerier) newBatch() *pgx.Batch {
	b := &pgx.Batch{}
	b.Queue("SELECT " + setConfigSQL(q.conn.PgConn(), true))
	return b
}

// SendBatch implements Querier. The results are for [pgx.QueuedQuery]'s functions, which Close calls.
func (q pooledQuerier) SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults {
	pinned := q.newBatch()
	pinned.QueuedQueries = append(pinned.QueuedQueries, b.QueuedQueries...)
	return q.conn.SendBatch(ctx, pinned)
}

func (q pooledQuerier) Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error) {
	b := q.newBatch()
	b.Queue(sql, args...)
	results := q.conn.SendBatch(ctx, b)
	if _, err := results.Exec(); err != nil {
		_ = results.Close() // returns the same error
		return nil, err
	}
	rows, err := results.Query()
	if err != nil {
		_ = results.Close() // returns the same error
		return nil, err
	}
	return pooledRows{rows, results}, nil
}

func (q pooledQuerier) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := q.Query(ctx, sql, args...)
	return pooledRow{rows, err}
}

// pooledRows ends the batch with the rows.
type pooledRows struct {
	pgx.Rows
	batch pgx.BatchResults
}

func (r pooledRows) Close() {
	r.Rows.Close()
	_ = r.batch.Close() // Err has the error
}

// pooledRow is the first row of a query.
type pooledRow struct {
	rows pgx.Rows
	err  error
}

func (r pooledRow) Scan(dest ...any) error {
	if r.err != nil {
		return r.err
	}
	defer r.rows.Close()
	if !r.rows.Next() {
		if err := r.rows.Err(); err != nil {
			return err
		}
		return pgx.ErrNoRows
	}
	if err := r.rows.Scan(dest...); err != nil {
		return err
	}
	r.rows.Close()
	return r.rows.Err()
}

// timeoutSettings are the settings of a role or a database that can end a session before its own settings are pinned, by
// the SQLSTATE of the server's error.
var timeoutSettings = map[string]string{
	"57014": "statement_timeout",
	"25P03": "idle_in_transaction_session_timeout",
	"57P05": "idle_session_timeout",
	"25P04": "transaction_timeout",
}

// disableTimeout switches off the timeout that err is about in the startup parameters of c. It reports whether it did, so
// that another attempt may succeed. Timeouts are not switched off in advance: older servers do not know all of them, and
// poolers refuse to pass them on.
func disableTimeout(err error, c *pgconn.Config) bool {
	name := timeoutSettings[SQLState(err)]
	if name == "" || c.RuntimeParams[name] == "0" {
		return false
	}
	c.RuntimeParams[name] = "0"
	return true
}

// majorVersion returns the leading number of a server_version such as "15.4 (Debian …)" or "18beta1"; 0 if it has none.
func majorVersion(s string) int {
	end := strings.IndexFunc(s, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		s = s[:end]
	}
	n, _ := strconv.Atoi(s)
	return n
}
