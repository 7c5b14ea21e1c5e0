package postgres

import (
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
