package capture

import (
	"math"

	"capture/internal/cgroup"
	"capture/snapshot"
)

const (
	processMemory = 40 << 20 // bytes for the program, its connections and its buffers
	rowsShare     = 0.6      // share of the memory beyond processMemory that rows may use; the rest is for readers and for garbage that is not collected yet
	leastRows     = 4 << 20  // minimum memory for rows in bytes, however low the limit is

	// A row may take 1/rowDivisor of the memory beyond processMemory. A row may exist several times at once: in the server's
	// message, as a line, in its page, in the page's copy for the spill file, in the buffer of the file that is being written,
	// and as an old version in a View. All these copies must fit in addition to the memory for rows.
	rowDivisor = 20
	leastRow   = 1 << 20 // minimum of the size limit of a row in bytes, however low the memory limit is
)

// newTable returns a Table. If the memory of this process is limited, the Table keeps rows in a share of that memory, and
// spills the other rows to a file in spillDir. Without a limit, the Table spills rows only if spillOld is set, and then only
// rows that a large transaction has replaced or deleted. The Table calls onLost if spilled rows cannot be read back.
func (cfg *Config) newTable(spillDir string, spillOld bool, onLost func(error)) *snapshot.Table {
	t := snapshot.NewTable()
	if cfg.pageBytes > 0 {
		t = snapshot.NewTestTable(cfg.pageBytes, 4)
	}
	if limit := cfg.memoryLimit(); limit < math.MaxInt64 {
		t.LimitMemory(max(int64(rowsShare*float64(limit-processMemory)), leastRows), spillDir, onLost)
	} else if spillOld {
		t.SpillOldRows(spillDir, onLost)
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
