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
	// system. The time is short, because memory grows by hundreds of MB in a second while a large transaction is applied.
	heapInterval   = 200 * time.Millisecond
	allowedGarbage = 32 << 20 // bytes of garbage that are always allowed, however small the live heap is
)

// tuneHeap keeps the process within its memory limit, and limits the garbage in its heap, until ctx ends. memoryLimit is
// --memory in bytes, or 0 for auto. tuneHeap leaves an operator's GOGC unchanged. It lowers an operator's GOMEMLIMIT only if
// --memory is set.
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
		// The runtime keeps a tenth more memory than it needs. For some time after a copy of the table, it keeps far more.
		if begun := time.Now(); free > max(live/32, 2*allowedGarbage) && begun.After(restUntil) {
			debug.FreeOSMemory()                          // also collects garbage
			restUntil = time.Now().Add(time.Since(begun)) // such collections take at most half of the time
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// limitHeap sets the runtime's memory limit to nine tenths of memoryLimit or of the control group's limit, whichever is lower:
// the runtime knows neither. Close to its limit, the runtime collects garbage more often. Without a limit, the runtime would
// not do so, and the kernel would kill the process.
func limitHeap(memoryLimit int64) {
	limit := cgroup.MemoryLimit()
	if memoryLimit > 0 {
		limit = min(limit, memoryLimit)
	}
	if (memoryLimit > 0 || os.Getenv("GOMEMLIMIT") == "") && limit < math.MaxInt64 {
		debug.SetMemoryLimit(min(debug.SetMemoryLimit(-1), limit/10*9))
	}
}

// gcPercent returns the GOGC percentage for a live heap of the given size in bytes. Most of a large heap is rows, in blocks
// without pointers, which the collector does not scan. A collection is therefore cheap regardless of the number of rows. A few
// percent of garbage, in contrast, are many bytes.
func gcPercent(live uint64) int {
	return int(min(max(allowedGarbage*100/max(live, 1), 3), 100))
}
