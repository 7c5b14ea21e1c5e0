package capture

import (
	"context"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"

	"capture/internal/cgroup"
	"capture/snapshot"
	"capture/store/manifest"
)

const (
	processMemory = 40 << 20 // bytes for the program, its connections and its buffers
	rowsShare     = 0.6      // share of the remaining memory for rows; the rest is for readers and for garbage that is not collected yet
	leastRows     = 4 << 20  // minimum memory for rows in bytes, however low the limit is

	// A row may take 1/rowDivisor of the memory that remains. It may exist several times at once: in the server's message, as
	// a line, in its page, in the page's copy for the spill file, in the buffer of the file that is being written, and as an
	// old version in a View that is still in use. All of these must fit in addition to the memory for rows.
	rowDivisor = 20
	leastRow   = 1 << 20 // minimum of the size limit of a row in bytes, however low the memory limit is

	memoryCheck = time.Second // time between checks of a Table's memory
)

// newTable returns a Table that keeps its rows within the memory that this process may use, and spills the others to a file
// in spillDir. The Table calls lost if spilled rows cannot be read back.
func (cfg *Config) newTable(spillDir string, lost func(error)) *snapshot.Table {
	t := snapshot.NewTable()
	if cfg.pageBytes > 0 {
		t = snapshot.NewTestTable(cfg.pageBytes, 4)
	}
	if limit := cfg.memoryLimit(); limit < math.MaxInt64 {
		t.LimitMemory(max(int64(rowsShare*float64(limit-processMemory)), leastRows), spillDir, lost)
	}
	return t
}

// memoryLimit returns the number of bytes of memory that this process may use, or [math.MaxInt64] if there is no limit.
func (cfg *Config) memoryLimit() int64 {
	limit := cgroup.MemoryLimit()
	if cfg.MemoryLimit > 0 {
		limit = min(limit, cfg.MemoryLimit)
	}
	return limit
}

// maxRow returns the size limit of a row as JSON, in bytes, or 0 if memory is not limited.
func (cfg *Config) maxRow() int64 {
	if cfg.maxRowBytes > 0 {
		return cfg.maxRowBytes
	}
	limit := cfg.memoryLimit()
	if limit == math.MaxInt64 {
		return 0
	}
	return max((limit-processMemory)/rowDivisor, leastRow)
}

// omittedCheck is the check that fails while rows do not fit into memory.
const omittedCheck = "omitted"

// omittedRows returns a text for the operator that describes the rows of v that do not fit into memory, or "" if all rows fit.
func omittedRows(v *snapshot.View) string {
	if v == nil || v.OmittedRows() == 0 {
		return ""
	}
	const named = 5
	var names []string
	for _, row := range v.Omitted(named) {
		names = append(names, fmt.Sprintf("%s (about %d MB)", manifest.KeyText(v.Shape(), row.Key), max(row.Bytes>>20, 1)))
	}
	if v.OmittedRows() > named {
		names = append(names, "…")
	}
	return fmt.Sprintf("%d rows do not fit into memory and are not in feedback.json: %s", v.OmittedRows(), strings.Join(names, ", "))
}

// memoryMonitor logs when rows are spilled for the first time and which rows are omitted. It sets a condition while rows
// cannot be spilled.
type memoryMonitor struct {
	table      *snapshot.Table
	conditions *conditions
	log        hclog.Logger
}

// run checks the memory until ctx ends.
func (m *memoryMonitor) run(ctx context.Context) error {
	tick := time.NewTicker(memoryCheck)
	defer tick.Stop()
	spilled, omitted := false, ""
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if text := omittedRows(m.table.View()); text != omitted {
			if omitted = text; text != "" {
				m.log.Error("rows are omitted", "reason", text, "hint", "give capture more memory")
			} else {
				m.log.Info("no row is omitted any more")
			}
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
