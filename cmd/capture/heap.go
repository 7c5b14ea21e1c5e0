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
	heapInterval   = time.Second // between looks at the heap
	freeInterval   = time.Second // between returns of free memory to the system, each of which is a collection, too
	allowedGarbage = 32 << 20    // bytes that may wait for the collector, however small the live heap is
)

// tuneHeap keeps the process within its memory limit, and its heap close to what the rows take, until ctx ends.
// memoryLimit is --memory in bytes, or 0. An operator's GOGC and GOMEMLIMIT are left alone.
func tuneHeap(ctx context.Context, memoryLimit int64) error {
	limitHeap(memoryLimit)
	if os.Getenv("GOGC") != "" {
		return nil
	}
	tick := time.NewTicker(heapInterval)
	defer tick.Stop()
	sample := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/free:bytes"}}
	percent, freed := 0, time.Time{}
	for {
		metrics.Read(sample)
		live, free := sample[0].Value.Uint64(), sample[1].Value.Uint64()
		if p := gcPercent(live); p != percent {
			percent = p
			debug.SetGCPercent(percent)
		}
		// The runtime keeps a tenth more than it needs, and far more for some time after a copy of the table.
		if free > max(live/32, 2*allowedGarbage) && time.Since(freed) > freeInterval {
			debug.FreeOSMemory()
			freed = time.Now()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// limitHeap tells the runtime the limit of the control group or memoryLimit, which it does not know. With a limit of its own a tenth
// below that, it collects more often before the kernel kills the process.
func limitHeap(memoryLimit int64) {
	limit := cgroup.MemoryLimit()
	if memoryLimit > 0 {
		limit = min(limit, memoryLimit)
	}
	if (memoryLimit > 0 || os.Getenv("GOMEMLIMIT") == "") && limit < math.MaxInt64 {
		debug.SetMemoryLimit(min(debug.SetMemoryLimit(-1), limit/10*9))
	}
}

// gcPercent returns the GOGC percentage for a live heap of so many bytes. Most of a large heap is rows, in blocks without
// pointers, which the collector does not scan. A collection is therefore cheap however many rows there are, while a few
// percent of garbage are many bytes.
func gcPercent(live uint64) int {
	return int(min(max(allowedGarbage*100/max(live, 1), 3), 100))
}
