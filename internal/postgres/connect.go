package postgres

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// Querier is a connection or a transaction.
type Querier interface {
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
	SendBatch(ctx context.Context, b *pgx.Batch) pgx.BatchResults
}

// pooledKey is the key in a connection's custom data that marks a connection through a pooler.
const pooledKey = "capture.pooled"

// Connect opens an ordinary session and pins its settings. Through a pooler it pins none, because a setting would stay on a
// server connection that the pooler may give to the application next. There, [Begin] and [Pinned] pin the settings for each
// transaction. Errors are explained as by [Explain].
func Connect(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := openSession(ctx, cfg)
	for c := cfg.Copy(); disableTimeout(err, &c.Config); {
		conn, err = openSession(ctx, c)
	}
	if err != nil {
		return nil, Explain(fmt.Errorf("connect to %s: %w", serverAddress(&cfg.Config), err))
	}
	return conn, nil
}

func openSession(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := pgx.ConnectConfig(ctx, cfg)
	if err != nil {
		return nil, err
	}
	pg := conn.PgConn()
	pooled, err := pinUnlessPooled(ctx, pg)
	if err != nil {
		_ = pg.Close(context.WithoutCancel(ctx))
		return nil, err
	}
	if pooled {
		pg.CustomData()[pooledKey] = true
	}
	return conn, nil
}

// Pooled reports whether conn goes through a pooler such as PgBouncer. A session through a pooler keeps no state between
// transactions.
func Pooled(conn *pgx.Conn) bool {
	return conn.PgConn().CustomData()[pooledKey] == true
}

// serverAddress returns the host, port and database for messages, without user and password.
func serverAddress(c *pgconn.Config) string {
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
