package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
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

// ParseConfig parses a connection URL or a DSN as libpq does. The environment variables of libpq supply what url leaves out;
// url may be empty. ParseConfig returns an error for an unknown parameter, and for a parameter of libpq that capture cannot
// honor (see libpqOnly). Errors never contain the password.
func ParseConfig(url string) (*pgx.ConnConfig, error) {
	if scheme := driverScheme.FindString(url); scheme != "" {
		url = "postgresql://" + url[len(scheme):]
	}
	if url != "" {
		if err := checkConnString(url); err != nil {
			return nil, fmt.Errorf("parse the database URL: %w", err)
		}
	}
	cfg, err := parseURL(url)
	if err != nil {
		return nil, fmt.Errorf("parse the database URL: %w", err)
	}
	delete(cfg.RuntimeParams, "replication")     // capture chooses the kind of connection
	delete(cfg.RuntimeParams, "client_encoding") // capture pins the encoding
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
	// A transaction pooler may run each statement in a different server session. A session lacks the statements that were
	// prepared in another session. Therefore, pgx must not use prepared statements.
	cfg.DefaultQueryExecMode = pgx.QueryExecModeExec
	cfg.StatementCacheCapacity = 0
	cfg.DescriptionCacheCapacity = 0
	return cfg, nil
}

// parseURL parses a connection string that checkConnString has accepted. pgx does most of the work. parseURL itself handles
// what libpq knows and pgx does not: PGSYSCONFDIR, hostaddr, the limits on the TLS version, and the parameters in libpqOnly.
// It also checks the parameters in checkedValues.
func parseURL(url string) (*pgx.ConnConfig, error) {
	if err := checkValues(url); err != nil {
		return nil, err
	}
	cfg, err := parsePgx(url)
	// libpq looks for a service in the folder PGSYSCONFDIR if the user's own service file lacks the service.
	if folder := os.Getenv("PGSYSCONFDIR"); err != nil && folder != "" && strings.Contains(err.Error(), "service") {
		if system, systemErr := parsePgx(addParameter(url, "servicefile", filepath.Join(folder, "pg_service.conf"))); systemErr == nil {
			cfg, err = system, nil
		}
	}
	if err != nil {
		return nil, err
	}
	if addresses := hostAddresses(cfg); addresses != "" {
		if !namesHost(url, cfg) { // if no host is named, libpq uses the value of hostaddr as the host's name, too
			if cfg, err = parsePgx(addParameter(url, "host", addresses)); err != nil {
				return nil, err
			}
			delete(cfg.RuntimeParams, "hostaddr")
		}
		if err := dialAddresses(cfg, addresses); err != nil {
			return nil, err
		}
	}
	return cfg, applyLibpqOnly(cfg)
}

func parsePgx(url string) (*pgx.ConnConfig, error) {
	cfg, err := pgx.ParseConfig(url)
	if err != nil {
		var parse *pgconn.ParseConfigError
		if errors.As(err, &parse) {
			parse.ConnString = "" // the string may contain a password in a place that pgx does not redact
		}
		return nil, errors.New(strings.TrimPrefix(err.Error(), "cannot parse ``: "))
	}
	return cfg, nil
}

// addParameter adds a parameter to a connection string.
func addParameter(s, name, value string) string {
	if !strings.HasPrefix(s, "postgres://") && !strings.HasPrefix(s, "postgresql://") {
		return strings.TrimSpace(s + " " + name + "='" + strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value) + "'")
	}
	separator := "?"
	if strings.Contains(s, "?") {
		separator = "&"
	}
	return s + separator + name + "=" + percentEncode(value)
}
