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

// Export reads the whole table once, as one transaction sees it, without a daemon. It records its progress in progress, which
// may be nil.
func Export(ctx context.Context, cfg Config, progress *source.Progress) (*snapshot.View, error) {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if progress == nil {
		progress = source.NewProgress("export", nil)
	}
	t := cfg.newTable(cmp.Or(cfg.SpillDir, os.TempDir()), false, nil)
	if err := tablecopy.ReadTable(ctx, cfg.env("export", progress), "export", t, nil); err != nil {
		return nil, postgres.Explain(err)
	}
	return t.View(), nil
}
