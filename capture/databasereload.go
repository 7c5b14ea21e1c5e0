package capture

import (
	"sync"

	"github.com/hashicorp/go-hclog"
	"github.com/jackc/pgx/v5"
)

// databaseConfig is the connection configuration, which may change while the daemon runs.
type databaseConfig struct {
	load func() (*pgx.ConnConfig, error) // loads the configuration again; nil if it never changes
	log  hclog.Logger

	mu  sync.Mutex
	cfg *pgx.ConnConfig
}

func newDatabaseConfig(cfg *Config) *databaseConfig {
	return &databaseConfig{load: cfg.ReloadDatabase, log: cfg.Logger, cfg: cfg.Database}
}

// reload loads the configuration again and returns it. If loading fails, it returns the previous configuration. If the
// previous configuration no longer works, the error of the next connection is logged and shown.
func (d *databaseConfig) reload() *pgx.ConnConfig {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.load == nil {
		return d.cfg
	}
	if cfg, err := d.load(); err == nil {
		d.cfg = cfg
	} else {
		d.log.Debug("cannot reload the connection configuration", "error", err)
	}
	return d.cfg
}

// currentConfig returns the configuration that was loaded last.
func (d *databaseConfig) currentConfig() *pgx.ConnConfig {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.cfg
}
