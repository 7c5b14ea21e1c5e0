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
	"capture/store/manifest"
)

// previousRows serves the rows that an earlier run left in the file, if the database is unreachable at the start. It drops
// them when the first copy is complete. Until then, the earlier run's file does not change. If somebody removes the file, the
// flusher writes it again from these rows.
type previousRows struct {
	load      func(context.Context) (*snapshot.View, manifest.Manifest, error)
	file      *store.File
	table     *snapshot.Table
	waitState func(ctx context.Context, states ...string) bool // see [supervisor.waitState]
	log       hclog.Logger
	state     atomic.Pointer[previousState] // nil while the rows are not in memory
	fetcher   *fetcher                      // downloads a copy if there is no file; nil without copies off the machine
}

// previousState has the rows of an earlier run's file, and the manifest with which they were read.
type previousState struct {
	view     *snapshot.View
	manifest manifest.Manifest
}

// Pauses between attempts to fetch a copy.
const firstFetchRetry, longestFetchRetry = 2 * time.Second, time.Minute

// run serves the rows if the first attempt to follow fails. It returns when a source follows, when ctx ends, or when it
// finds that there are no rows to serve.
func (p *previousRows) run(ctx context.Context) error {
	found, ok := p.file.Existing()
	if !ok && p.fetcher == nil || p.load == nil {
		return nil
	}
	if !p.waitState(ctx, stateWaiting, stateFollowing) || p.table.View() != nil {
		return nil
	}
	if !ok {
		if found, ok = p.fetch(ctx); !ok {
			return nil
		}
		defer p.fetcher.conditions.set(fetchedCondition, "")
	}
	// For a short time, these rows and the rows of the first copy are in memory together. Therefore, run loads no file that is
	// large compared with the memory limit.
	if limit := cgroup.MemoryLimit(); limit < math.MaxInt64 && found.Bytes > limit/6 {
		p.log.Info("not loading the previous run's rows: they need too much memory", "bytes", found.Bytes)
		p.waitState(ctx, stateFollowing)
		return nil
	}
	start := time.Now()
	view, m, err := p.load(ctx)
	switch {
	case ctx.Err() != nil:
	case err != nil:
		p.log.Warn("cannot load the previous run's rows", "error", err)
		p.waitState(ctx, stateFollowing)
	default:
		p.state.Store(&previousState{view, m})
		p.log.Info("serving the previous run's rows until the database is reachable", "rows", view.Rows(), "ms", millis(time.Since(start)))
		if p.waitState(ctx, stateFollowing) { // otherwise ctx has ended, and the last flush may need the rows
			p.state.Store(nil)
		}
	}
	return nil
}

// view returns the rows, or nil while they are not in memory.
func (p *previousRows) view() *snapshot.View {
	if s := p.state.Load(); s != nil {
		return s.view
	}
	return nil
}

// fetch writes feedback.json from the newest copy that is kept off the machine. After an error, it tries again until the
// table has been copied from the database.
func (p *previousRows) fetch(ctx context.Context) (manifest.Manifest, bool) {
	pauses := newBackOff(firstFetchRetry, longestFetchRetry, 0)
	for failure := ""; ; {
		m, fetched, err := p.fetcher.fetch(ctx)
		if err == nil || ctx.Err() != nil {
			return m, fetched
		}
		if err.Error() != failure {
			failure = err.Error()
			p.log.Warn("cannot fetch the newest copy off the machine; retrying", "error", err)
		}
		select {
		case <-ctx.Done():
			return m, false
		case <-time.After(pauses.NextBackOff()):
		}
		if p.table.View() != nil {
			return m, false
		}
	}
}
