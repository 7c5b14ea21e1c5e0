package postgres

import (
	"strings"
	"testing"
)

func TestChangeSettingByProvider(t *testing.T) {
	t.Parallel()
	for p, words := range map[provider][2]string{
		"": {"restart", "pg_reload_conf"}, azure: {"--name wal_level --value logical # and restart", "--value 60000"},
		amazon: {"rds.logical_replication = 1", "wal_sender_timeout = 60000"}, cloudSQL: {"cloudsql.logical_decoding=on", "wal_sender_timeout=60000"},
	} {
		if s := p.changeSetting("wal_level", "logical", true); !strings.Contains(s, words[0]) {
			t.Errorf("%s: %s", p, s)
		}
		if s := p.changeSetting("wal_sender_timeout", "60000", false); !strings.Contains(s, words[1]) || strings.Contains(s, "reboot") {
			t.Errorf("%s: %s", p, s)
		}
	}
}
