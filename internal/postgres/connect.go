package postgres

import (
	"cmp"
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

// Connect opens an ordinary session and pins its settings. Through a pooler, it pins no settings, because a setting would stay
// on a server connection that the pooler may give to the application next. There, [Begin] and [Pinned] pin the settings for
// each transaction. Errors are explained as by [Explain].
func Connect(ctx context.Context, cfg *pgx.ConnConfig) (*pgx.Conn, error) {
	conn, err := openSession(ctx, cfg)
	for c := cfg.Copy(); disableTimeout(err, &c.Config); {
		conn, err = openSession(ctx, c)
	}
	if err != nil {
		return nil, Explain(fmt.Errorf("connect to %s: %w", Address(&cfg.Config), err))
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

// Address returns c's hosts, ports and database as text for messages, without user and password.
func Address(c *pgconn.Config) string {
	var hosts []string
	for _, h := range configHosts(c) {
		hosts = append(hosts, h.String())
	}
	return strings.Join(hosts, ",") + "/" + databaseName(c)
}

// answeringAddress returns what [Address] returns, but with only the host to which the connection goes.
func answeringAddress(ctx context.Context, conn *pgx.Conn) string {
	c := conn.Config()
	return answeringHost(ctx, &c.Config, conn.PgConn().Conn().RemoteAddr()).String() + "/" + databaseName(&c.Config)
}

func databaseName(c *pgconn.Config) string { return cmp.Or(c.Database, c.User) }

func (h hostPort) String() string {
	host := h.Host
	if !strings.HasPrefix(host, "/") && strings.Contains(host, ":") {
		host = "[" + host + "]"
	}
	return fmt.Sprintf("%s:%d", host, h.Port)
}
