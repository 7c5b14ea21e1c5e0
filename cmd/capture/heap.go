package main

import (
	"context"
	"math"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"capture/internal/cgroup"
)

const (
	// heapInterval is the time between two measurements of the heap. After each measurement, free memory may be returned to the
	// system. The interval is short, because memory grows by hundreds of MB per second while capture applies a large
	// transaction.
	heapInterval   = 200 * time.Millisecond
	allowedGarbage = 32 << 20 // bytes of garbage that are always allowed, however small the live heap is
)

// tuneHeap sets the runtime's memory limit. Then, until ctx ends, it limits the garbage in the heap and returns free memory to
// the system. If an operator has set GOGC, tuneHeap only sets the memory limit. memoryLimit is the value of --memory in
// bytes, or 0 for auto.
func tuneHeap(ctx context.Context, memoryLimit int64) error {
	limitHeap(memoryLimit)
	if os.Getenv("GOGC") != "" {
		return nil
	}
	tick := time.NewTicker(heapInterval)
	defer tick.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	percent, restUntil := 0, time.Time{}
	for {
		metrics.Read(sample)
		live, free := sample[0].Value.Uint64(), sample[1].Value.Uint64()
		if p := gcPercent(live); p != percent {
			percent = p
			debug.SetGCPercent(percent)
		}
		// The runtime keeps a tenth more memory than it needs, and far more for some time after a copy of the table. So
		// return free memory to the system.
		if begun := time.Now(); free > max(live/32, 2*allowedGarbage) && begun.After(restUntil) {
			debug.FreeOSMemory()                          // also collects garbage
			restUntil = time.Now().Add(time.Since(begun)) // so FreeOSMemory runs for at most half of the time
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// limitHeap lowers the runtime's memory limit to nine tenths of --memory or of the control group's limit, whichever is lower.
// The runtime itself knows neither of them. limitHeap never raises an operator's GOMEMLIMIT, and leaves it unchanged if
// memoryLimit is 0. Close to its limit, the runtime collects garbage more often. Without a limit, the heap could grow until
// the kernel kills the process.
func limitHeap(memoryLimit int64) {
	limit := cgroup.MemoryLimit()
	if memoryLimit > 0 {
		limit = min(limit, memoryLimit)
	}
	if (memoryLimit > 0 || os.Getenv("GOMEMLIMIT") == "") && limit < math.MaxInt64 {
		debug.SetMemoryLimit(min(debug.SetMemoryLimit(-1), limit/10*9))
	}
}

// gcPercent returns the GOGC percentage for a live heap of the given size in bytes. A larger heap gets a lower percentage,
// because even a few percent of a large heap are many bytes of garbage. Frequent collections of a large heap are cheap: most
// of the heap is rows, in blocks without pointers, which the collector does not scan.
func gcPercent(live uint64) int {
	return int(min(max(allowedGarbage*100/max(live, 1), 3), 100))
}
