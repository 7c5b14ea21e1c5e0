package capture

import (
	"context"
	"math"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/cgroup"
	"capture/snapshot"
)

const (
	processMemory = 40 << 20 // bytes for the program, its connections and its buffers
	rowsShare     = 0.6      // of the rest, for rows; readers and garbage that is not collected yet take the others
	leastRows     = 4 << 20  // bytes for rows, however low the limit is

	memoryCheck = time.Second // interval of the looks at a Table's memory
)

// newTable returns a Table that keeps its rows within the memory that this process may use, and spills the others to a file
// in spillDir. The Table calls lost if spilled rows cannot be read back.
func (cfg *Config) newTable(spillDir string, lost func(error)) *snapshot.Table {
	t := snapshot.NewTable()
	if cfg.pageBytes > 0 {
		t = snapshot.NewTestTable(cfg.pageBytes, 4)
	}
	limit := cgroup.MemoryLimit()
	if cfg.MemoryLimit > 0 {
		limit = min(limit, cfg.MemoryLimit)
	}
	if limit < math.MaxInt64 {
		t.LimitMemory(max(int64(rowsShare*float64(limit-processMemory)), leastRows), spillDir, lost)
	}
	return t
}

// memoryMonitor reports when rows are spilled for the first time, and while they should be and cannot.
type memoryMonitor struct {
	table      *snapshot.Table
	conditions *conditions
	log        hclog.Logger
}

// run looks at the memory until ctx ends.
func (m *memoryMonitor) run(ctx context.Context) error {
	tick := time.NewTicker(memoryCheck)
	defer tick.Stop()
	spilled := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		u := m.table.Usage()
		if !spilled && u.Spilled > 0 {
			spilled = true
			m.log.Info("the table exceeds the memory for rows; spilling to a file beside feedback.json", "resident_bytes", u.Resident, "limit_bytes", u.Limit)
		}
		text := ""
		if u.Err != nil {
			text = u.Err.Error()
		}
		switch changed := m.conditions.set("memory", text); {
		case changed && text != "":
			m.log.Error("row memory limit exceeded, cannot spill to disk", "error", u.Err)
		case changed:
			m.log.Info("spilling to disk works again")
		}
	}
}
