package postgres

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

const defaultConnectTimeout = 10 * time.Second

// driverScheme matches a URL scheme that includes a driver's name, such as postgresql+psycopg2:// in SQLAlchemy (Python).
// The rest of such a URL has libpq's form.
var driverScheme = regexp.MustCompile(`^postgres(ql)?\+[a-z0-9_]+://`)

// libpqOnly are parameters that libpq uses itself. pgx would send them to the server, which refuses them. capture sets its
// own keepalive (see dialServer) and supports neither GSS encryption nor compression.
var libpqOnly = []string{
	"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout",
	"gssencmode", "gsslib", "gssdelegation", "sslcompression", "load_balance_hosts",
}

// ParseConfig parses a connection URL or a DSN as libpq does. The environment variables of libpq supply what url leaves out;
// url may be empty. Parameters that ParseConfig does not know are an error. Errors never contain the password.
func ParseConfig(url string) (*pgx.ConnConfig, error) {
	if scheme := driverScheme.FindString(url); scheme != "" {
		url = "postgresql://" + url[len(scheme):]
	}
	if url != "" {
		if err := checkConnString(url); err != nil {
			return nil, fmt.Errorf("parse the database URL: %w", err)
		}
	}
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		var parse *pgconn.ParseConfigError
		if errors.As(err, &parse) {
			parse.ConnString = "" // may contain a password in a place that pgx does not redact
		}
		return nil, fmt.Errorf("parse the database URL: %s",
			strings.TrimPrefix(err.Error(), "cannot parse ``: "))
	}
	for _, name := range libpqOnly {
		delete(cfg.RuntimeParams, name)
	}
	delete(cfg.RuntimeParams, "replication") // capture chooses the kind of connection
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
	cfg.DialFunc = dialServer
	// A transaction pooler may run each statement in a different server session, which lacks the statements prepared in
	// another one.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.StatementCacheCapacity = 0
	cfg.DescriptionCacheCapacity = 0
	return cfg, nil
}
