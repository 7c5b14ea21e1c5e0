package postgres

import (
	"context"
	"errors"
	"fmt"
	"net"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const (
	defaultConnectTimeout = 10 * time.Second
	// A peer that stopped answering is noticed after the idle time and three probes, or sooner with data on its way.
	keepAliveIdle     = 15 * time.Second
	keepAliveInterval = 5 * time.Second
	keepAliveCount    = 3
	tcpUserTimeout    = 20 * time.Second
)

// driverScheme is the scheme with which Python's SQLAlchemy names a driver; the rest of such a URL is libpq's.
var driverScheme = regexp.MustCompile(`^postgres(ql)?\+[a-z0-9_]+://`)

// libpqOnly are parameters of libpq itself, which pgx would send on to a server that refuses them. capture has its own
// keepalive, and offers neither GSS encryption nor compression.
var libpqOnly = []string{
	"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
	"gssencmode", "gsslib", "gssdelegation", "sslcompression", "load_balance_hosts",
}

// ParseConfig reads a connection URL or DSN as libpq does, and libpq's environment for what it leaves out (all of it,
// where url is ""). Errors never hold the password.
func ParseConfig(url string) (*pgx.ConnConfig, error) {
	if scheme := driverScheme.FindString(url); scheme != "" {
		url = "postgresql://" + url[len(scheme):]
	}
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		var parse *pgconn.ParseConfigError
		if errors.As(err, &parse) {
			parse.ConnString = "" // it may hold a password in a place where pgx does not look for one
		}
		return nil, fmt.Errorf("read the database URL: %s",
			strings.TrimPrefix(err.Error(), "cannot parse ``: "))
	}
	for _, name := range libpqOnly {
		delete(cfg.RuntimeParams, name)
	}
	delete(cfg.RuntimeParams, "replication") // which kind of connection is capture's own choice
	if fallback, ok := cfg.RuntimeParams["fallback_application_name"]; ok {
		delete(cfg.RuntimeParams, "fallback_application_name")
		if cfg.RuntimeParams["application_name"] == "" {
			cfg.RuntimeParams["application_name"] = fallback
		}
	}
	if cfg.RuntimeParams["application_name"] == "" {
		cfg.RuntimeParams["application_name"] = "capture"
	}
	if cfg.ConnectTimeout == 0 {
		cfg.ConnectTimeout = defaultConnectTimeout
	}
	cfg.DialFunc = dial
	// Statements are sent unprepared, since a transaction pooler may run each on another server session.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.StatementCacheCapacity = 0
	cfg.DescriptionCacheCapacity = 0
	return cfg, nil
}

func dial(ctx context.Context, network, address string) (net.Conn, error) {
	d := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{
		Enable: true, Idle: keepAliveIdle, Interval: keepAliveInterval, Count: keepAliveCount,
	}}
	if strings.HasPrefix(network, "tcp") {
		d.Control = setUserTimeout
	}
	return d.DialContext(ctx, network, address)
}
