package capture

import (
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"capture/internal/postgres"
)

// TestValidate: the defaults are valid once a database and a table are set. The error for an invalid setting contains the
// setting's name.
func TestValidate(t *testing.T) {
	t.Parallel()
	for setting, change := range map[string]func(*Config){
		"":              func(*Config) {},
		"Database":      func(cfg *Config) { cfg.Database = nil },
		"Table":         func(cfg *Config) { cfg.Table = postgres.Name{Schema: "public"} },
		"Source":        func(cfg *Config) { cfg.Source = "triggers" },
		"PollInterval":  func(cfg *Config) { cfg.PollInterval = 0 },
		"FlushInterval": func(cfg *Config) { cfg.FlushInterval = 0 },
		"FlushDelay":    func(cfg *Config) { cfg.FlushDelay = -time.Second },
		"MaxWAL":        func(cfg *Config) { cfg.MaxWAL = -1 },
		"VolumeWarn":    func(cfg *Config) { cfg.VolumeWarn = 101 },
	} {
		cfg := DefaultConfig()
		cfg.Database, cfg.Table = &pgx.ConnConfig{}, postgres.Name{Table: "votes"}
		change(&cfg)
		err := cfg.Validate()
		switch {
		case setting == "" && err != nil:
			t.Errorf("the defaults: %v", err)
		case setting != "" && (err == nil || !strings.Contains(err.Error(), setting)):
			t.Errorf("%s: %v", setting, err)
		}
	}
}
