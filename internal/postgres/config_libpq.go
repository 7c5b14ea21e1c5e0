package postgres

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// libpqOnly are the parameters that libpq itself evaluates and pgx does not know. pgx would send them to the server, which
// refuses unknown parameters. If the parameter is not given, libpq reads the environment variable envVar.
//
// If a parameter has no refusal text, capture ignores the parameter. Otherwise, capture accepts only an empty value and the
// accepted values, because these request what capture does anyway. Any other value causes an error with the refusal text. If
// capture ignored such a value instead, it might not verify the server, for example.
var libpqOnly = map[string]struct {
	envVar   string
	accepted []string
	refusal  string
}{
	// capture sets its own keepalive; see dialServer.
	"keepalives": {}, "keepalives_idle": {}, "keepalives_interval": {}, "keepalives_count": {}, "tcp_user_timeout": {},
	"sslcompression": {}, // libpq also ignores this parameter
	"gsslib":         {envVar: "PGGSSLIB"},
	"gssdelegation":  {"PGGSSDELEGATION", []string{"0"}, "capture does not authenticate by GSSAPI"},
	"gssencmode":     {"PGGSSENCMODE", []string{"disable", "prefer"}, "capture does not encrypt by GSSAPI; use sslmode"},

	"load_balance_hosts": {"PGLOADBALANCEHOSTS", []string{"disable"}, "capture tries the hosts in the given order"},
	"requiressl":         {"PGREQUIRESSL", []string{"0"}, "write sslmode=require"},
	"requirepeer":        {"PGREQUIREPEER", nil, "capture cannot check the server's user; use TLS with sslmode=verify-full"},
	"sslcrl":             {"PGSSLCRL", nil, "capture cannot check lists of revoked certificates"},
	"sslcrldir":          {"PGSSLCRLDIR", nil, "capture cannot check lists of revoked certificates"},
	"sslkeylogfile":      {"", nil, "capture writes no TLS keys to a file"},
	"scram_client_key":   {"", nil, "use a password"},
	"scram_server_key":   {"", nil, "use a password"},

	"oauth_issuer": {"", nil, noOAuth}, "oauth_client_id": {"", nil, noOAuth},
	"oauth_client_secret": {"", nil, noOAuth}, "oauth_scope": {"", nil, noOAuth},
	"oauth_ca_file": {"PGOAUTHCAFILE", nil, noOAuth},
}

const noOAuth = "capture does not authenticate by OAuth"

// secretParameters are the parameters whose values no message may contain.
var secretParameters = []string{"scram_client_key", "scram_server_key", "oauth_client_secret"}

// applyLibpqOnly handles the parameters that pgx does not know, and removes them from the parameters that pgx sends to the
// server. It returns an error if a value requests something that capture does not support.
func applyLibpqOnly(cfg *pgx.ConnConfig) error {
	for _, name := range slices.Sorted(maps.Keys(libpqOnly)) {
		p := libpqOnly[name]
		value, given := cfg.RuntimeParams[name]
		delete(cfg.RuntimeParams, name)
		if !given && p.envVar != "" {
			value = os.Getenv(p.envVar)
			given = value != ""
		}
		if !given || value == "" || p.refusal == "" || slices.Contains(p.accepted, value) {
			continue
		}
		shown := fmt.Sprintf("%s=%q", name, value)
		if slices.Contains(secretParameters, name) {
			shown = name
		}
		return fmt.Errorf("%s is not supported: %s", shown, p.refusal)
	}
	return applyTLSVersions(cfg)
}

var tlsVersions = map[string]uint16{
	"tlsv1": tls.VersionTLS10, "tlsv1.1": tls.VersionTLS11, "tlsv1.2": tls.VersionTLS12, "tlsv1.3": tls.VersionTLS13,
}

// applyTLSVersions honors ssl_min_protocol_version and ssl_max_protocol_version.
func applyTLSVersions(cfg *pgx.ConnConfig) error {
	version := func(name, variable string) (uint16, error) {
		value, given := cfg.RuntimeParams[name]
		delete(cfg.RuntimeParams, name)
		if !given {
			value = os.Getenv(variable)
		}
		v, known := tlsVersions[strings.ToLower(value)]
		if value != "" && !known {
			return 0, fmt.Errorf("%s is %q; accepted are TLSv1, TLSv1.1, TLSv1.2 and TLSv1.3", name, value)
		}
		return v, nil
	}
	lowest, err := version("ssl_min_protocol_version", "PGSSLMINPROTOCOLVERSION")
	if err != nil {
		return err
	}
	highest, err := version("ssl_max_protocol_version", "PGSSLMAXPROTOCOLVERSION")
	if err != nil {
		return err
	}
	if highest != 0 && cmp.Or(lowest, tls.VersionTLS12) > highest {
		return errors.New("ssl_max_protocol_version is lower than ssl_min_protocol_version, which is TLSv1.2 by default")
	}
	set := func(c *tls.Config) {
		if c != nil {
			c.MinVersion, c.MaxVersion = lowest, highest
		}
	}
	set(cfg.TLSConfig)
	for _, f := range cfg.Fallbacks {
		set(f.TLSConfig)
	}
	return nil
}

// checkedValues lists the parameters with a fixed set of values, each with the environment variable that libpq reads if the
// parameter is not given. capture checks the values itself, because pgx's errors contain neither the value nor the accepted
// values.
var checkedValues = []struct {
	name, variable string
	accepted       []string
}{
	{"sslmode", "PGSSLMODE", []string{"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}},
	{"target_session_attrs", "PGTARGETSESSIONATTRS", []string{"any", "read-write", "read-only", "primary", "standby", "prefer-standby"}},
	{"channel_binding", "PGCHANNELBINDING", []string{"disable", "prefer", "require"}},
	{"sslcertmode", "PGSSLCERTMODE", []string{"disable", "allow", "require"}},
	{"sslnegotiation", "PGSSLNEGOTIATION", []string{"postgres", "direct"}},
}

// checkValues returns an error if a parameter with a fixed set of values has a value outside of that set.
func checkValues(s string) error {
	for _, p := range checkedValues {
		value, where := connParameter(s, p.name), p.name
		if value == "" {
			value, where = os.Getenv(p.variable), p.variable
		}
		if value != "" && !slices.Contains(p.accepted, value) {
			return fmt.Errorf("%s is %q; accepted are %s", where, value, strings.Join(p.accepted, ", "))
		}
	}
	return nil
}

// connParameter returns the last value of a parameter in a checked connection string, or "".
func connParameter(s, name string) string {
	if !strings.HasPrefix(s, "postgres://") && !strings.HasPrefix(s, "postgresql://") {
		value := ""
		_ = eachKeyword(s, func(n, v string) error {
			if n == name {
				value = v
			}
			return nil
		})
		return value
	}
	_, query, _ := strings.Cut(s, "?")
	value := ""
	for _, parameter := range strings.Split(query, "&") {
		if n, v, _ := strings.Cut(parameter, "="); n == name {
			if decoded, err := url.PathUnescape(v); err == nil {
				value = decoded
			}
		}
	}
	return value
}

func percentEncode(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

// hostAddresses returns the value of hostaddr, or "", and removes hostaddr from the parameters that pgx sends to the server.
func hostAddresses(cfg *pgx.ConnConfig) string {
	value, given := cfg.RuntimeParams["hostaddr"]
	delete(cfg.RuntimeParams, "hostaddr")
	if !given {
		value = os.Getenv("PGHOSTADDR")
	}
	return value
}

// namesHost reports whether the connection string, the environment or a service file names a host. If none of them does,
// cfg.Host is pgx's default: a folder of sockets, or localhost.
func namesHost(s string, cfg *pgx.ConnConfig) bool {
	if filepath.IsAbs(cfg.Host) { // a folder of sockets does not count as a host: libpq ignores it if there is an address (hostaddr)
		return false
	}
	return cfg.Host != "localhost" || strings.Contains(s, "localhost") || os.Getenv("PGHOST") != "" ||
		os.Getenv("PGSERVICE") != "" || connParameter(s, "service") != ""
}

// dialAddresses makes the connections of cfg go to the given addresses: a list separated by commas, with one address for
// each host. The server's certificate and the password file still refer to the hosts' names. If an address is empty, the
// host's name is resolved.
func dialAddresses(cfg *pgx.ConnConfig, addresses string) error {
	hosts := configHosts(&cfg.Config)
	list := strings.Split(addresses, ",")
	if len(list) != len(hosts) {
		return fmt.Errorf("hostaddr has %d addresses for %d hosts", len(list), len(hosts))
	}
	byHost := map[string][]string{}
	for i, address := range list {
		if address == "" {
			continue
		}
		if _, err := netip.ParseAddr(address); err != nil {
			return fmt.Errorf("hostaddr is %q, which is not an IP address", address)
		}
		byHost[hosts[i].Host] = append(byHost[hosts[i].Host], address)
	}
	lookup := cfg.LookupFunc
	cfg.LookupFunc = func(ctx context.Context, host string) ([]string, error) {
		if known := byHost[host]; known != nil {
			return known, nil
		}
		return lookup(ctx, host)
	}
	return nil
}

// hostPort is a host, or a folder of sockets, and a port.
type hostPort struct {
	Host string
	Port uint16
}

// configHosts returns the hosts of a configuration in the order in which they are tried. pgx lists a host twice if it is tried
// with and without TLS.
func configHosts(c *pgconn.Config) []hostPort {
	hosts := []hostPort{{c.Host, c.Port}}
	for _, f := range c.Fallbacks {
		if next := (hostPort{f.Host, f.Port}); next != hosts[len(hosts)-1] {
			hosts = append(hosts, next)
		}
	}
	return hosts
}

// answeringHost returns the host in the configuration c that a connection goes to. remote is the address of the server's end
// of the connection. If no host matches remote, answeringHost returns the IP address and port in remote, or the first
// host if remote is a Unix socket.
func answeringHost(ctx context.Context, c *pgconn.Config, remote net.Addr) hostPort {
	hosts := configHosts(c)
	tcp, isTCP := remote.(*net.TCPAddr)
	for _, h := range hosts {
		switch {
		case filepath.IsAbs(h.Host):
			if unix, ok := remote.(*net.UnixAddr); ok && unix.Name == filepath.Join(h.Host, fmt.Sprintf(".s.PGSQL.%d", h.Port)) {
				return h
			}
		case len(hosts) == 1:
			return h
		case isTCP && tcp.Port == int(h.Port):
			addresses := []string{h.Host}
			if _, err := netip.ParseAddr(h.Host); err != nil && c.LookupFunc != nil {
				addresses, _ = c.LookupFunc(ctx, h.Host) // there are no addresses if the name cannot be resolved any more
			}
			if slices.ContainsFunc(addresses, func(a string) bool { return net.ParseIP(a).Equal(tcp.IP) }) {
				return h
			}
		}
	}
	if isTCP {
		return hostPort{tcp.IP.String(), uint16(tcp.Port)}
	}
	return hosts[0]
}
