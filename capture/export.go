package capture

import (
	"cmp"
	"context"
	"errors"
	"os"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/capture/source"
	"capture/capture/tablecopy"
	"capture/internal/postgres"
	"capture/snapshot"
)

// Export reads the whole table, as one transaction sees it, without a daemon. It reports to the given Progress, which may be
// nil. If the application migrates the table, Export tries again until the migration has ended, and logs the reason.
func Export(ctx context.Context, cfg Config, progress *source.Progress) (*snapshot.View, error) {
	if cfg.Logger == nil {
		cfg.Logger = hclog.NewNullLogger()
	}
	if progress == nil {
		progress = source.NewProgress("export", nil)
	}
	t := cfg.newTable(cmp.Or(cfg.SpillDir, os.TempDir()), false, nil)
	pauses := newBackOff(firstRetry, cmp.Or(cfg.retry, longestRetry), retrySpread)
	lastLogged := ""
	for {
		err := postgres.Explain(tablecopy.ReadTable(ctx, cfg.env("export", progress), "export", t, nil))
		if err == nil {
			return t.View(), nil
		}
		if resync := (*source.ResyncError)(nil); !errors.As(err, &resync) && !postgres.IsLockTimeout(err) {
			return nil, err
		}
		if text := err.Error(); text != lastLogged {
			lastLogged = text
			cfg.Logger.Warn("the table cannot be read yet", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pauses.NextBackOff()):
		}
	}
}
