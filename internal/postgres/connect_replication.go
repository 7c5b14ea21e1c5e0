package postgres

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// ConnectReplication opens a replication connection to the database. It pins the same settings as [Connect], because the
// walsender's settings determine the text form of the values that pgoutput sends. The connection accepts only the simple
// query protocol. It explains errors with [Explain].
func ConnectReplication(ctx context.Context, cfg *pgx.ConnConfig) (*pgconn.PgConn, error) {
	c := cfg.Config.Copy()
	c.RuntimeParams["replication"] = "database"
	pg, err := openReplication(ctx, c)
	for disableTimeout(err, c) {
		pg, err = openReplication(ctx, c)
	}
	if err != nil {
		return nil, Explain(fmt.Errorf("connect for replication to %s: %w", Address(c), err))
	}
	return pg, nil
}

func openReplication(ctx context.Context, c *pgconn.Config) (*pgconn.PgConn, error) {
	pg, err := pgconn.ConnectConfig(ctx, c)
	if err != nil {
		return nil, err
	}
	if err := pinWALSender(ctx, pg); err != nil {
		_ = pg.Close(context.WithoutCancel(ctx))
		return nil, fmt.Errorf("set up the session: %w", err)
	}
	return pg, nil
}

const (
	// defaultWALSenderTimeout replaces a wal_sender_timeout of 0, which means no limit. Without a limit, a frozen capture
	// would keep its slot, and the slot would retain more and more WAL.
	defaultWALSenderTimeout = time.Minute
	// walSenderTimeoutKey is the key of the timeout in a connection's custom data.
	walSenderTimeoutKey = "capture.wal_sender_timeout"
)

// WALSenderTimeout returns how long the server waits for a message on a replication connection before it ends the
// connection.
func WALSenderTimeout(pg *pgconn.PgConn) time.Duration {
	timeout, _ := pg.CustomData()[walSenderTimeoutKey].(time.Duration)
	return timeout
}

func pinWALSender(ctx context.Context, pg *pgconn.PgConn) error {
	// current_setting returns the timeout with a unit, such as 1min, so the query casts it to an interval. The view
	// pg_settings would return milliseconds, but to read one row of this view, the server computes all settings.
	const timeout = "pg_catalog.current_setting('wal_sender_timeout')"
	results, err := pg.Exec(ctx, sessionSettingsSQL(pg, "SET")+fmt.Sprintf(`;
		SELECT (pg_catalog.date_part('epoch', pg_catalog.set_config('wal_sender_timeout',
			CASE %[1]s WHEN '0' THEN '%[2]d' ELSE %[1]s END, false)::pg_catalog.interval) * 1000)::pg_catalog.int8`,
		timeout, defaultWALSenderTimeout.Milliseconds())).ReadAll()
	if err != nil {
		return err
	}
	last := results[len(results)-1]
	if len(last.Rows) != 1 {
		return errors.New("the server did not return its wal_sender_timeout")
	}
	ms, err := strconv.ParseInt(string(last.Rows[0][0]), 10, 64)
	if err != nil {
		return fmt.Errorf("wal_sender_timeout: %w", err)
	}
	pg.CustomData()[walSenderTimeoutKey] = time.Duration(ms) * time.Millisecond
	return nil
}

// LimitAbandonedWALSender makes the server end the session of a replication connection, and drop its temporary slot, if this
// process no longer uses the connection. wal_sender_timeout is not enough, because it applies only while a stream is being
// sent.
//
// If the client sends no command for frozenTimeout, the server ends the session (idle_in_transaction_session_timeout). A
// session that has exported a snapshot counts as idle in a transaction until its next command. This timeout does not run while
// the session waits for a lock. For example, CREATE_REPLICATION_SLOT may wait for transactions of the application for hours. To
// end such a session, too, the server also tests every checkInterval whether the client has closed the connection
// (client_connection_check_interval). Version 13 has no such setting, and some systems do not support it.
func LimitAbandonedWALSender(ctx context.Context, pg *pgconn.PgConn, frozenTimeout, checkInterval time.Duration) error {
	limit := fmt.Sprintf("SET idle_in_transaction_session_timeout = %d", frozenTimeout.Milliseconds())
	exec := func(sql string) error {
		_, err := pg.Exec(ctx, sql).ReadAll()
		return err
	}
	supported := majorVersion(pg.ParameterStatus("server_version")) >= 14
	var err error
	if supported {
		// Replication commands do not start the timer of client_connection_check_interval, so SELECT 1 starts it.
		err = exec(fmt.Sprintf("%s; SET client_connection_check_interval = %d; SELECT 1", limit, checkInterval.Milliseconds()))
		// If the server's operating system cannot test connections, the server accepts only the interval 0. A fork of Postgres
		// may not know the setting. In both cases, the server refuses the statement, so set only
		// idle_in_transaction_session_timeout.
		supported = SQLState(err) != invalidParameterValue && SQLState(err) != undefinedObject
	}
	if !supported {
		err = exec(limit)
	}
	if err != nil {
		return fmt.Errorf("set session timeouts: %w", err)
	}
	return nil
}
