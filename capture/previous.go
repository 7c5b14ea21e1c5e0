package capture

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/cgroup"
	"capture/snapshot"
	"capture/store"
)

// previousRows serves the rows that an earlier run left in the file, if the database is unreachable at the start. It drops
// them when the first copy is complete. The file itself does not change before that.
type previousRows struct {
	load      func(context.Context) (*snapshot.View, error)
	file      *store.File
	table     *snapshot.Table
	waitState func(ctx context.Context, states ...string) bool // see [supervisor.waitState]
	log       hclog.Logger
	view      atomic.Pointer[snapshot.View]
}

// run loads the rows if the first attempt to follow fails, and returns when a source follows or ctx ends.
func (p *previousRows) run(ctx context.Context) error {
	found, ok := p.file.Existing()
	if !ok || p.load == nil {
		return nil
	}
	if !p.waitState(ctx, stateWaiting, stateFollowing) || p.table.View() != nil {
		return nil
	}
	// For a short time, these rows and the rows of the first copy are in memory together.
	if limit := cgroup.MemoryLimit(); limit < math.MaxInt64 && found.Bytes > limit/6 {
		p.log.Info("not loading the previous run's rows: they need too much memory", "bytes", found.Bytes)
		return nil
	}
	start := time.Now()
	view, err := p.load(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		p.log.Warn("cannot load the previous run's rows", "error", err)
	default:
		p.view.Store(view)
		p.log.Info("serving the previous run's rows until the database is reachable", "rows", view.Rows(), "ms", millis(time.Since(start)))
		p.waitState(ctx, stateFollowing)
		p.view.Store(nil)
	}
	return nil
}
