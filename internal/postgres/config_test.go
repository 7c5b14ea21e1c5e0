package postgres

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
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

// malformedURLs have a password of FIRST and SECOND in a place where a part of it could be taken for something else.
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
			t.Errorf("%s is taken for %s as %s with %v", url, serverAddress(&cfg.Config), cfg.User, cfg.RuntimeParams)
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

// FuzzParseConfig puts a password into each form of an address, as people would who do not know that it must be encoded. No
// part of it may appear in an error, or anywhere in the configuration except as the password.
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
		for name := range knownParameters { // "a host=b" in place of a password is a host, as anybody would read it
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
