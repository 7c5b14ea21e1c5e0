package postgres

import (
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

func TestParseConfigHidesPasswordsAndAcceptsDriverSchemes(t *testing.T) {
	for _, url := range []string{"postgres://u:hun@ter2@h:port/x", "host=h password=hunter2 port=x", "postgres://u:hunter2@h/d?connect_timeout=x", "password='hunter2"} {
		if _, err := ParseConfig(url); err == nil || strings.Contains(err.Error(), "hunter2") || strings.Contains(err.Error(), "ter2") {
			t.Errorf("%s: %v", url, err)
		}
	}
	cfg, err := ParseConfig("postgresql+psycopg2://u:p@h/d?replication=database&keepalives_idle=3&application_name=mine")
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Host != "h" || cfg.RuntimeParams["replication"] != "" || cfg.RuntimeParams["keepalives_idle"] != "" ||
		cfg.RuntimeParams["application_name"] != "mine" || cfg.ConnectTimeout != defaultConnectTimeout {
		t.Errorf("got %+v", cfg.Config)
	}
	t.Setenv("PGHOST", "from-env")
	t.Setenv("PGCONNECT_TIMEOUT", "3")
	if cfg, err = ParseConfig(""); err != nil || cfg.Host != "from-env" || cfg.RuntimeParams["application_name"] != "capture" || cfg.ConnectTimeout.Seconds() != 3 {
		t.Errorf("got %+v, %v", cfg, err)
	}
}

// malformedURLs contain FIRST and SECOND as parts of a password. A parser could mistake one of these parts for something
// else, such as a host. ParseConfig must therefore refuse these URLs, and quote neither part in the error.
var malformedURLs = []string{
	"postgres://app:FIRST@SECOND@db/app", "postgres://app:12/SECOND@db/app", "postgres://app:12?SECOND@db/app",
	"postgres://app:12#SECOND@db/app", "postgres://app:FIRST SECOND@db/app", "postgres://app:FIRST%SECOND@db/app",
	"postgres://app:FIRST\\SECOND@db/app", "postgres://app:[FIRST]SECOND@db/app", "postgres://app:FIRST:SECOND/app",
	"postgres://app:12/app?password=FIRST&SECOND=x", "postgres://db/app?SECOND", "postgres://db/app?password=FIRST#SECOND",
	`"postgres://app:FIRST@SECOND/app?sslmode=disable"`, "'postgres://app:FIRST@SECOND/app?sslmode=disable'",
	" postgres://app:FIRST@SECOND/app?sslmode=disable", "postgres://app:FIRST@db/app\n", "POSTGRES://app:FIRST@SECOND/app",
	"jdbc:postgresql://SECOND/app?user=app&password=FIRST", "mysql://app:FIRST@SECOND/app", "app:FIRST@SECOND/app",
	"//app:FIRST@SECOND/app", "SECOND", "SECOND:5432/app", "host=db password=FIRST SECOND", "host=db password=FIRST SECOND=x",
	"host=db password='FIRST'SECOND", "host=db password='FIRST SECOND", "host=db password=FIRST SECOND user=app", "=SECOND",
	"host=db pass word=SECOND", "postgresql+asyncpg://app:FIRST@SECOND@db/app",
}

func TestMalformedURLsAreRefused(t *testing.T) {
	for _, url := range malformedURLs {
		cfg, err := ParseConfig(url)
		if err == nil {
			t.Errorf("%s is taken for %s as %s with %v", url, Address(&cfg.Config), cfg.User, cfg.RuntimeParams)
		} else if strings.Contains(err.Error(), "FIRST") || strings.Contains(err.Error(), "SECOND") {
			t.Errorf("%s: the error shows it: %v", url, err)
		}
	}
	for url, password := range map[string]string{
		"postgres://app:p%40ss%2Fw%20rd@db/app": "p@ss/w rd", "postgres://app:a:b@db/app": "a:b", "postgresql://app@db": "",
		"postgres:///app?host=/var/run/postgresql&password=x": "x", "postgres://a:p@h1:1,h2:2/app?target_session_attrs=any": "p",
		"postgres://a:p@[::1]:5432/app": "p", "postgres://a:p@%2Fvar%2Frun/app": "p", "host=db password='a b' user = app": "a b",
		`host=db password=a\ b\\c`: `a b\c`, "host=db password = '' dbname=app": "", "postgres://a:p$!*(),;=+~é@h/d": "p$!*(),;=+~é",
		"postgres+psycopg2://a:p@h/d?options=-c%20search_path%3Dapp&search_path=app": "p", "dbname=app\n user=x": "",
	} {
		cfg, err := ParseConfig(url)
		if err != nil || cfg.Password != password {
			t.Errorf("%s: %v", url, err)
		}
	}
}

// FuzzParseConfig puts a password into each form of an address without encoding it. Some users make this mistake, because they
// do not know that a password must be encoded. No part of the password may appear in an error, or anywhere in the configuration
// except as the password.
func FuzzParseConfig(f *testing.F) {
	for _, s := range []string{"x", "@", "/", "?", "#", " ", "%", "%4", "'", `\`, "=", "&", ":", "[", "]", ",", "a=b", "@h/d?x=", "é", "\n"} {
		f.Add(s, "", uint8(0))
		f.Add(s, s, uint8(3))
	}
	forms := []string{"postgres://app:%s@db/app", "postgresql://app:%s@db:5432/app?sslmode=disable", "host=db password=%s dbname=app",
		"host=db password='%s' dbname=app", "postgres://db/app?password=%s&user=app", "postgresql+asyncpg://app:%s@db/app", "%s"}
	f.Fuzz(func(t *testing.T, a, b string, form uint8) {
		if strings.Contains(a+b, "SECRET") {
			return
		}
		for name := range knownParameters { // skip a password such as "a host=b", because it really sets the host
			if parameter := regexp.MustCompile(`[\s&]` + name + `\s*=`); parameter.MatchString(a) || parameter.MatchString(b) {
				return
			}
		}
		const first, second, third = "SECRETONE", "SECRETTWO", "SECRETTHREE"
		url := strings.Replace(forms[int(form)%len(forms)], "%s", first+a+second+b+third, 1)
		cfg, err := ParseConfig(url)
		shown := ""
		if err != nil {
			shown = err.Error()
		} else {
			shown = fmt.Sprint(cfg.Host, cfg.Port, cfg.Database, cfg.User, cfg.RuntimeParams)
			for _, fallback := range cfg.Fallbacks {
				shown += fmt.Sprint(fallback.Host, fallback.Port)
			}
		}
		if strings.Contains(shown, "SECRET") {
			t.Errorf("%q shows %q", url, shown)
		}
	})
}

// TestLibpqParameters checks that each parameter of libpq is either honored or refused with an error that names it, even if
// the parameter comes from the environment or a service file. Only settings of the server, such as
// application_name, are sent to the server.
func TestLibpqParameters(t *testing.T) {
	folder := t.TempDir()
	service := filepath.Join(folder, "pg_service.conf")
	if err := os.WriteFile(service, []byte("[checked]\nhost=h\nsslcrl=/crl\n[plain]\nhost=from-service\nport=7\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	settings := strings.Fields(`application_name options search_path role statement_timeout lock_timeout TimeZone timezone DateStyle datestyle
		idle_in_transaction_session_timeout idle_session_timeout transaction_timeout work_mem`)
	for name := range knownParameters {
		for _, value := range []string{"", "1", "x", "10.0.0.1", "any", "disable"} {
			cfg, err := ParseConfig("host=h " + name + "='" + value + "'")
			for sent := range map[bool]map[string]string{true: {}, false: cfgParams(cfg)}[err != nil] {
				if !slices.Contains(settings, sent) {
					t.Errorf("%s=%s: %s is sent to the server", name, value, sent)
				}
			}
		}
	}
	for _, c := range []struct{ url, variable, value, refused string }{
		{url: "postgres://h/d?sslcrl=/x", refused: "sslcrl=\"/x\" is not supported"},
		{url: "postgres://h/d?sslcrldir=/x", refused: "sslcrldir"},
		{url: "host=h", variable: "PGSSLCRL", value: "/x", refused: "sslcrl"},
		{url: "host=h requirepeer=postgres", refused: "requirepeer"},
		{url: "host=h", variable: "PGREQUIREPEER", value: "postgres", refused: "requirepeer"},
		{url: "postgres://h/d?gssencmode=require", refused: "gssencmode"},
		{url: "postgres://h/d?gssencmode=prefer&keepalives=0&sslcompression=1&load_balance_hosts=disable&requirepeer=&client_encoding=auto"},
		{url: "host=a,b load_balance_hosts=random", refused: "in the given order"},
		{url: "host=h requiressl=1", refused: "sslmode=require"},
		{url: "host=h scram_client_key=SECRET", refused: "scram_client_key is not supported"},
		{url: "host=h oauth_client_secret=SECRET oauth_issuer=https://x", refused: "oauth_client_secret is not supported"},
		{url: "host=h sslkeylogfile=/tmp/keys", refused: "sslkeylogfile"},
		{url: "service=checked", variable: "PGSERVICEFILE", value: service, refused: "sslcrl"},
		{url: "postgres://h/d?sslmode=REQUIRE", refused: `sslmode is "REQUIRE"; accepted are disable, allow, prefer, require, verify-ca, verify-full`},
		{url: "host=h sslmode = 'verify full'", refused: `sslmode is "verify full"`},
		{url: "host=h", variable: "PGSSLMODE", value: "on", refused: `PGSSLMODE is "on"`},
		{url: "host=h target_session_attrs=master", refused: "read-write"},
		{url: "host=h channel_binding=yes", refused: "channel_binding is \"yes\""},
		{url: "host=h sslnegotiation=tls", refused: "direct"},
		{url: "host=h ssl_min_protocol_version=1.3", refused: "accepted are TLSv1, TLSv1.1"},
		{url: "host=h ssl_max_protocol_version=TLSv1.1", refused: "ssl_max_protocol_version is lower"},
		{url: "host=h", variable: "PGSSLMINPROTOCOLVERSION", value: "SSLv3", refused: "ssl_min_protocol_version"},
		{url: "host=h hostaddr=db.example.com", refused: "hostaddr is \"db.example.com\", which is not an IP address"},
		{url: "host=a,b hostaddr=10.0.0.1", refused: "hostaddr has 1 addresses for 2 hosts"},
	} {
		t.Run(c.url+c.variable, func(t *testing.T) {
			if c.variable != "" {
				t.Setenv(c.variable, c.value)
			}
			cfg, err := ParseConfig(c.url)
			switch {
			case c.refused == "" && err != nil:
				t.Error(err)
			case c.refused == "" && len(cfg.RuntimeParams) != 1: // only application_name is left
				t.Errorf("the server gets %v", cfg.RuntimeParams)
			case c.refused != "" && (err == nil || !strings.Contains(err.Error(), c.refused) || strings.Contains(err.Error(), "SECRET")):
				t.Errorf("%v, want an error with %q", err, c.refused)
			}
		})
	}

	cfg, err := ParseConfig("postgres://h/d?sslmode=prefer&ssl_min_protocol_version=TLSv1.3")
	if err != nil || cfg.TLSConfig.MinVersion != tls.VersionTLS13 || cfg.Fallbacks[0].TLSConfig != nil {
		t.Errorf("%+v, %v", cfg, err)
	}
	t.Setenv("PGSERVICEFILE", filepath.Join(folder, "missing"))
	t.Setenv("PGSYSCONFDIR", folder)
	for _, url := range []string{"service=plain dbname=app", "postgres:///app?service=plain"} {
		if cfg, err := ParseConfig(url); err != nil || cfg.Host != "from-service" || cfg.Port != 7 || cfg.Database != "app" {
			t.Errorf("PGSYSCONFDIR, %s: %v", url, err)
		}
	}
	if _, err := ParseConfig("service=nowhere"); err == nil {
		t.Error("a service that is in no file is accepted")
	}
}

func cfgParams(cfg *pgx.ConnConfig) map[string]string {
	if cfg == nil {
		return nil
	}
	return cfg.RuntimeParams
}

// TestHostAddress checks that a connection goes to the address in hostaddr, and that the certificate is checked for the name
// in host.
func TestHostAddress(t *testing.T) {
	_, address := database(t)
	parsed, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	here := fmt.Sprintf("port=%d user=postgres dbname=%s sslmode=disable", parsed.Port, parsed.Database)
	for dsn, want := range map[string]string{
		here + " host=db.invalid hostaddr=127.0.0.1":                                                                    "db.invalid",
		here + " hostaddr=127.0.0.1":                                                                                    "127.0.0.1",
		here + " host=/nowhere hostaddr=127.0.0.1":                                                                      "127.0.0.1",
		here + " host=a.invalid,b.invalid hostaddr=127.0.0.9,127.0.0.1":                                                 "b.invalid",
		here + " host=a.invalid,127.0.0.1 hostaddr=127.0.0.9,":                                                          "127.0.0.1",
		fmt.Sprintf("postgres://postgres@/%s?port=%d&sslmode=disable&hostaddr=127.0.0.1", parsed.Database, parsed.Port): "127.0.0.1",
	} {
		cfg, err := ParseConfig(dsn)
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		conn, err := Connect(testContext(t), cfg)
		if err != nil {
			t.Errorf("%s: %v", dsn, err)
			continue
		}
		if got := answeringAddress(testContext(t), conn); got != fmt.Sprintf("%s:%d/%s", want, parsed.Port, parsed.Database) {
			t.Errorf("%s: %s answers", dsn, got)
		}
		conn.Close(testContext(t))
	}
	t.Setenv("PGHOSTADDR", "127.0.0.1")
	cfg, err := ParseConfig(here + " host=db.invalid")
	if err != nil {
		t.Fatal(err)
	}
	conn, err := Connect(testContext(t), cfg)
	if err != nil {
		t.Fatalf("PGHOSTADDR: %v", err)
	}
	conn.Close(testContext(t))
	if cfg, err = ParseConfig("host=db.invalid sslmode=verify-full hostaddr=127.0.0.1"); err != nil || cfg.TLSConfig.ServerName != "db.invalid" {
		t.Errorf("the certificate is checked for %q (%v)", cfg.TLSConfig.ServerName, err)
	}
}

// TestSeveralHosts checks that Address returns all hosts of a URL, and that Server.Address contains only the host that
// answers. Neither of them contains the password.
func TestSeveralHosts(t *testing.T) {
	_, address := database(t)
	parsed, err := pgx.ParseConfig(address)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := ParseConfig(fmt.Sprintf("postgres://postgres:hunter2@127.0.0.9:1,localhost:%d/%s?sslmode=prefer", parsed.Port, parsed.Database))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := Address(&cfg.Config), fmt.Sprintf("127.0.0.9:1,localhost:%d/%s", parsed.Port, parsed.Database); got != want {
		t.Errorf("address %s, want %s", got, want)
	}
	conn, err := Connect(testContext(t), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(testContext(t))
	s, err := LoadServer(testContext(t), conn)
	if want := fmt.Sprintf("localhost:%d/%s", parsed.Port, parsed.Database); err != nil || s.Address != want {
		t.Errorf("%s answers (%v), want %s", s.Address, err, want)
	}
}
