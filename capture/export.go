package capture

import (
	"cmp"
	"context"
	"os"

	"github.com/hashicorp/go-hclog"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/postgres"
	"capture/snapshot"
)

// Export reads the whole table once, as one transaction sees it, without a daemon.
func Export(ctx context.Context, cfg Config) (*snapshot.View, error) {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	t := cfg.newTable(cmp.Or(cfg.SpillDir, os.TempDir()), nil)
	if err := tablecopy.ReadTable(ctx, cfg.env("export", source.NewProgress("export", nil)), "export", t, nil); err != nil {
		return nil, postgres.Explain(err)
	}
	return t.View(), nil
}
