package capture

import (
	"context"
	"math"
	"time"

	"capture/capture/source"
	"capture/internal/cgroup"
	"capture/snapshot"
)

// Of the memory that there is, a part is for the process itself: the program, connections, buffers. Of the rest the rows may
// take a share: beside them lie what the collector has not yet freed, and what readers read back for the moment.
const (
	processMemory = 40 << 20
	rowsShare     = 0.6
	leastRows     = 4 << 20
)

// newTable makes a Table that keeps to the memory that the process may use, Config.MemoryLimit or [cgroup.MemoryLimit]: rows beyond that
// lie in a file in folder.
func (cfg *Config) newTable(folder string, damaged func(error)) *snapshot.Table {
	t := snapshot.NewTable()
	if cfg.segmentBytes > 0 {
		t = snapshot.NewTestTable(cfg.segmentBytes, 4)
	}
	limit := cgroup.MemoryLimit()
	if cfg.MemoryLimit > 0 {
		limit = min(limit, cfg.MemoryLimit)
	}
	if limit < math.MaxInt64 {
		t.LimitMemory(max(int64(rowsShare*float64(limit-processMemory)), leastRows), folder, damaged)
	}
	return t
}

// damaged has the table copied anew, since rows that are not in memory can't be read back.
func (d *Daemon) damaged(err error) {
	d.log.Error("the rows that are not in memory are lost; the table is copied anew", "error", err)
	d.again(&source.ResyncError{Reason: err.Error()})
}

// watchMemory says when rows begin to lie outside memory, and when they should and can't, until ctx ends.
func (d *Daemon) watchMemory(ctx context.Context) error {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	out := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		u := d.table.Usage()
		if !out && u.Spilled > 0 {
			out = true
			d.log.Info("the table is larger than the memory for it; the rest of it is in a file beside feedback.json",
				"resident_bytes", u.Resident, "limit_bytes", u.Limit)
		}
		text := ""
		if u.Err != nil {
			text = u.Err.Error()
		}
		switch news := d.state.note("memory", text); {
		case news && text != "":
			d.log.Error("more rows are in memory than should be", "error", u.Err)
		case news:
			d.log.Info("rows that do not fit into memory can be written out again")
		}
	}
}
