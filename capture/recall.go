package capture

import (
	"context"
	"math"
	"time"

	"capture/internal/cgroup"
	"capture/snapshot"
)

// recall has the rows that an earlier run left be there for readers, where the database can't be reached at the start. They
// are dropped when the first copy has ended; the file stays as it is till then.
func (d *Daemon) recall(ctx context.Context) error {
	found, ok := d.file.Existing()
	if !ok || d.cfg.LoadPrevious == nil {
		return nil
	}
	follows := func(state string) bool { return state == stateFollowing }
	if !d.state.until(ctx, func(state string) bool { return state == stateWaiting || follows(state) }) || d.table.View() != nil {
		return nil
	}
	// They lie beside the first copy for a moment.
	if limit := cgroup.MemoryLimit(); limit < math.MaxInt64 && found.Bytes > limit/6 {
		d.log.Info("the rows of an earlier run are too many to be shown until the database can be reached", "bytes", found.Bytes)
		return nil
	}
	start := time.Now()
	view, err := d.cfg.LoadPrevious(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		d.log.Warn("the rows of an earlier run can't be shown until the database can be reached", "error", err)
	default:
		d.recalled.Store(view)
		d.log.Info("showing the rows of an earlier run until the database can be reached", "rows", view.Rows(), "ms", millis(time.Since(start)))
		d.state.until(ctx, follows)
		d.recalled.Store(nil)
	}
	return nil
}

// View is the last committed state; before the first copy what an earlier run left, where that was asked for, or nil.
func (d *Daemon) View() *snapshot.View {
	if v := d.table.View(); v != nil {
		return v
	}
	return d.recalled.Load()
}
