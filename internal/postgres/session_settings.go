package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// setting is a setting of a session (a GUC) and its value.
type setting struct{ name, value string }

// expressionSettings are the settings that change what an expression or a function computes. capture pins them to read and
// print every value in one way. The application's triggers, defaults and constraints must run without the pinned values: see
// [OwnSettings].
var expressionSettings = []setting{
	// No object of another role may replace an operator, a function or a type of Postgres; see [Begin].
	{"search_path", ""},
	// How the server parses values and expressions.
	{"array_nulls", "on"}, {"transform_null_equals", "off"}, {"xmloption", "content"},
	// How values print.
	{"DateStyle", "ISO, MDY"}, {"IntervalStyle", "postgres"}, {"TimeZone", "UTC"},
	{"bytea_output", "hex"}, {"extra_float_digits", "1"}, {"quote_all_identifiers", "off"},
}

// sessionSettings returns the settings that capture pins in every session. They override the settings of the server, the
// database and the role, so each value has only one text form, and no timeout ends a session.
func sessionSettings(pg *pgconn.PgConn) []setting {
	// A SQL_ASCII database stores bytes of any encoding. With the encoding UTF8, reads would fail, because the server
	// refuses to send bytes that are not valid UTF-8.
	encoding := "UTF8"
	if pg.ParameterStatus("server_encoding") == "SQL_ASCII" {
		encoding = "SQL_ASCII"
	}
	settings := slices.Concat(expressionSettings, []setting{
		{"client_encoding", encoding},
		{"standard_conforming_strings", "on"},
		// A role's timeouts must not end a session. Callers set limits of their own.
		{"statement_timeout", "0"}, {"lock_timeout", "0"}, {"idle_in_transaction_session_timeout", "0"},
		{"default_transaction_isolation", "read committed"}, {"default_transaction_deferrable", "off"},
		// JIT compilation takes longer than the queries on the catalog.
		{"jit", "off"},
		// If a row-level security policy would hide rows, a query fails instead of returning only a part of the rows.
		{"row_security", "off"},
	})
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

// setConfigSQL returns an SQL expression that pins the session's settings: until the end of the transaction if local is
// true, otherwise for the whole session.
func setConfigSQL(pg *pgconn.PgConn, local bool) string {
	var calls []string
	for _, s := range sessionSettings(pg) {
		calls = append(calls, fmt.Sprintf("pg_catalog.set_config(%s, %s, %t)", QuoteLiteral(s.name), QuoteLiteral(s.value), local))
	}
	return "pg_catalog.concat(" + strings.Join(calls, ", ") + ")"
}

// pinUnlessPooled reports whether the connection goes through a pooler. If it does not, pinUnlessPooled pins the session's
// settings. A pooler gives each client a process ID of its own, to know which client a cancel request is for. This ID differs
// from the server's pg_backend_pid(). One query compares the two IDs and pins the settings only if they are equal, so no
// setting ever stays on a pooler's server connection.
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

// Begin starts a transaction in which the session's settings are pinned, also through a pooler. mode is the text after the
// keyword BEGIN, for example "ISOLATION LEVEL REPEATABLE READ READ ONLY".
//
// The search path is empty in almost every statement. With an empty path, Postgres looks for names without a schema only in
// pg_catalog. So no role can create an operator or a function that capture would call instead of Postgres' own. Statements that
// need the session's own path, as in a restore, name the schema of every object. The session's path is pinned already, but an
// earlier statement may have called a function that changed the path, for example the function of a cast. So Begin empties the
// path again.
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
	// OwnSearchPath is a statement that sets the search path to the session's default for the rest of the transaction. The
	// default comes from the URL, the role, the database or the server. Statements that run with it must name the schema of
	// every object, operators included.
	OwnSearchPath = "SET LOCAL search_path TO DEFAULT"
)

// OwnSettings and PinnedSettings set, for the rest of the transaction, all settings that change what an expression or a
// function computes. OwnSettings sets them to the session's defaults, as [OwnSearchPath] does with the search path. So
// triggers, defaults and constraints compute what they compute for the application. PinnedSettings sets them to the values that
// capture needs.
var (
	OwnSettings    = eachExpressionSetting(func(s setting) string { return "SET LOCAL " + s.name + " TO DEFAULT" })
	PinnedSettings = eachExpressionSetting(func(s setting) string { return "SET LOCAL " + s.name + " = " + QuoteLiteral(s.value) })
)

func eachExpressionSetting(statement func(setting) string) string {
	var statements []string
	for _, s := range expressionSettings {
		statements = append(statements, statement(s))
	}
	return strings.Join(statements, "; ")
}

// OwnSettingsDifferSQL is an SQL condition that is true if OwnSettings would change a setting other than the search path.
var OwnSettingsDifferSQL = func() string {
	names := eachExpressionSetting(func(s setting) string { return s.name })
	return `EXISTS (SELECT FROM pg_catalog.pg_settings s WHERE s.name = ANY (pg_catalog.string_to_array(` + QuoteLiteral(names) + `, '; ')) AND s.name <> 'search_path'
		AND s.reset_val <> s.setting AND NOT (s.name = 'TimeZone' AND s.reset_val IN ('UTC', 'Etc/UTC')))`
}()

// Pinned returns a Querier whose statements run with the session's settings. If q is a connection through a pooler, the Querier
// sends the settings with each statement. Otherwise, Pinned returns q itself.
func Pinned(q Querier) Querier {
	if conn, ok := q.(*pgx.Conn); ok && Pooled(conn) {
		return pooledQuerier{conn}
	}
	return q
}

// pooledQuerier sends each statement in a batch, after a query that pins the settings for the transaction. Outside a
// transaction block, the batch is a transaction of its own. Postgres ends this transaction at the Sync message, and the
// settings end with the transaction.
type pooledQuerier struct{ conn *pgx.Conn }

func (q pooledQuerier) newBatch() *pgx.Batch {
	b := &pgx.Batch{}
	b.Queue("SELECT " + setConfigSQL(q.conn.PgConn(), true))
	return b
}

// SendBatch implements Querier. The batch has one more result than b: the first result comes from the query that pins the
// settings. So callers must not read the results one after the other. They must set a function for each [pgx.QueuedQuery] of
// b. Close calls this function with the query's own result.
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
		_ = results.Close() // Close returns the same error
		return nil, err
	}
	rows, err := results.Query()
	if err != nil {
		_ = results.Close() // Close returns the same error
		return nil, err
	}
	return pooledRows{rows, results}, nil
}

func (q pooledQuerier) QueryRow(ctx context.Context, sql string, args ...any) pgx.Row {
	rows, err := q.Query(ctx, sql, args...)
	return pooledRow{rows, err}
}

// pooledRows closes the batch together with the rows.
type pooledRows struct {
	pgx.Rows
	batch pgx.BatchResults
}

func (r pooledRows) Close() {
	r.Rows.Close()
	_ = r.batch.Close() // callers get this error from Err
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

// timeoutSettings maps the SQLSTATE of a server's error to the timeout that causes it. If the role or the database sets such
// a timeout, it can end a session before capture has pinned its own settings.
var timeoutSettings = map[string]string{
	"57014": "statement_timeout",
	"25P03": "idle_in_transaction_session_timeout",
	"57P05": "idle_session_timeout",
	"25P04": "transaction_timeout",
}

// disableTimeout disables the timeout that caused err, by a startup parameter in c. It reports whether it disabled a timeout.
// If so, another attempt may succeed. capture does not disable timeouts in advance: older servers do not know all these
// settings, and poolers refuse to pass them on.
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
