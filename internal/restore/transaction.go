package restore

import (
	"cmp"
	"context"
	"errors"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// withSavepoint runs f within a savepoint. If f fails, withSavepoint rolls back to the savepoint, unless ctx has ended or the
// connection is closed.
func withSavepoint(ctx context.Context, tx pgx.Tx, f func() error) error {
	if _, err := tx.Exec(ctx, "SAVEPOINT capture"); err != nil {
		return err
	}
	err := f()
	end := "RELEASE SAVEPOINT capture"
	if err != nil {
		if tx.Conn().IsClosed() || ctx.Err() != nil {
			return err
		}
		end = "ROLLBACK TO SAVEPOINT capture; RELEASE SAVEPOINT capture"
	}
	_, after := tx.Conn().PgConn().Exec(ctx, end).ReadAll()
	return errors.Join(err, after)
}

// errTakeBack makes withSavepoint roll back after a successful check.
var errTakeBack = errors.New("take it back")

// peek runs f, which only reads, and then releases the locks that f took. Otherwise a change of the table's definition would
// wait until the file has been read, and the application would wait behind that change.
func peek(ctx context.Context, tx pgx.Tx, f func() error) error {
	err := withSavepoint(ctx, tx, func() error {
		return cmp.Or(f(), errTakeBack)
	})
	if errors.Is(err, errTakeBack) {
		return nil
	}
	return err
}

// withOwnPath runs f with the session's own search path. Statements that use the database's own types and functions run this
// way, because these types and functions may depend on the session's path. The statements themselves qualify every name with
// its schema, even the names of operators.
func withOwnPath(ctx context.Context, tx pgx.Tx, f func() error) error {
	return runBetween(ctx, tx, postgres.OwnSearchPath, postgres.EmptySearchPath, f)
}

// withOwnSettings runs f with the session's own search path, time zone and other settings on which the application's triggers,
// defaults and constraints may depend. Statements that write to the target table run this way. COPY does not, because it would
// read the file's values with these settings.
func withOwnSettings(ctx context.Context, tx pgx.Tx, f func() error) error {
	return runBetween(ctx, tx, postgres.OwnSettings, postgres.PinnedSettings, f)
}

// runBetween runs the SQL statements of beforeSQL, calls f, and runs the SQL statements of afterSQL.
func runBetween(ctx context.Context, tx pgx.Tx, beforeSQL, afterSQL string, f func() error) error {
	if _, err := tx.Exec(ctx, beforeSQL); err != nil {
		return err
	}
	if err := f(); err != nil {
		return err // the caller's rollback also restores the settings
	}
	_, err := tx.Exec(ctx, afterSQL)
	return err
}

// execAlone runs a statement by the extended query protocol, in which a message cannot hold more than one statement. So
// texts of a hostile manifest cannot add a second statement.
func execAlone(ctx context.Context, tx pgx.Tx, sql string) error {
	_, err := tx.Conn().PgConn().ExecParams(ctx, sql, nil, nil, nil, nil).Close()
	return err
}

// transactionID returns the ID of the current transaction. Postgres assigns the ID at the first call.
func transactionID(ctx context.Context, tx pgx.Tx) (id int64, err error) {
	err = tx.QueryRow(ctx, "SELECT pg_catalog.txid_current()").Scan(&id)
	return id, postgres.ExplainRedacted("begin", err)
}

// guardSession makes the server notice within minutes that this process, or the network between this process and the server, is
// gone. The server then releases the locks. client_connection_check_interval exists since PostgreSQL 14, and only on some
// systems.
func guardSession(ctx context.Context, tx pgx.Tx) error {
	for _, s := range [][2]string{{"client_connection_check_interval", "5s"}, {"tcp_keepalives_idle", "30"}, {"tcp_keepalives_interval", "10"}, {"tcp_keepalives_count", "6"}} {
		err := withSavepoint(ctx, tx, func() error {
			_, err := tx.Exec(ctx, "SELECT pg_catalog.set_config($1::text, $2::text, true) WHERE pg_catalog.current_setting($1::text, true) IS NOT NULL", s[0], s[1])
			return err
		})
		if err != nil && (tx.Conn().IsClosed() || ctx.Err() != nil) {
			return postgres.ExplainRedacted("set up the session", err)
		}
	}
	return nil
}
