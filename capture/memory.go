package capture

import (
	"fmt"
	"io/fs"
	"math"
	"os"
	"path"
	"runtime"
	"runtime/debug"
	runtimemetrics "runtime/metrics"
	"strconv"
	"strings"
)

// MemoryLimit is how many bytes of memory this process may use: GOMEMLIMIT or the limit of its control group, whichever
// is less; math.MaxInt64 where there is neither.
func MemoryLimit() int64 {
	return min(debug.SetMemoryLimit(-1), groupLimit(os.DirFS("/")))
}

// groupLimit is the least limit of the control groups (version 2, or 1 within a container) that this process is in.
func groupLimit(root fs.FS) int64 {
	limit := int64(math.MaxInt64)
	read := func(name string) {
		if b, err := fs.ReadFile(root, name); err == nil {
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil {
				limit = min(limit, n)
			}
		}
	}
	read("sys/fs/cgroup/memory/memory.limit_in_bytes")
	groups, _ := fs.ReadFile(root, "proc/self/cgroup") // absent elsewhere than on Linux
	for line := range strings.Lines(string(groups)) {
		at, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		// Within a container the path is often that of the host: the group itself is then at the top.
		for dir := path.Clean("/" + at); ; dir = path.Dir(dir) {
			read(path.Join("sys/fs/cgroup", dir, "memory.max"))
			if dir == "/" {
				break
			}
		}
	}
	return limit
}

// Of the memory that there is, the table may take so much: the rest is for what the collector has not yet freed, for the
// stream and for writing.
const tableShare = 0.8

// tooLargeError is that the table does not fit into memory.
type tooLargeError struct {
	rows  int64
	used  int64 // bytes, of all that is in memory
	limit int64
	size  string // the table's, on the server
}

func (e *tooLargeError) Error() string {
	return fmt.Sprintf("the table does not fit into memory: after %d rows %s are in use of the %s that GOMEMLIMIT or the control group allows; "+
		"the whole table takes %s on the server: raise the limit well beyond that, and to twice of it so that it can be copied anew beside the old state",
		e.rows, megabytes(e.used), megabytes(e.limit), e.size)
}

func megabytes(n int64) string { return fmt.Sprintf("%d MB", n/1e6) }

// fitting looks whether a copy still fits into memory.
type fitting struct {
	limit int64
	size  string // of the whole table, on the server
	since int64  // bytes since the last look
}

// lookEvery is after how many bytes of a copy the memory is looked at.
const lookEvery = 1 << 20

// check is asked before n more bytes of a copy are kept, with which it has so many rows.
func (f *fitting) check(n int, rows int64) error {
	if f.since += int64(n); f.since >= lookEvery && f.limit < math.MaxInt64 {
		f.since = 0
		if used := inUse(int64(tableShare * float64(f.limit))); used > 0 {
			return &tooLargeError{rows: rows, used: used, limit: f.limit, size: f.size}
		}
	}
	return nil
}

// inUse is how many bytes the heap holds where that is more than most, else 0. What looks like too much may be garbage
// yet.
func inUse(most int64) int64 {
	sample := []runtimemetrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	used := func() int64 {
		runtimemetrics.Read(sample)
		return int64(sample[0].Value.Uint64())
	}
	if used() <= most {
		return 0
	}
	runtime.GC()
	if n := used(); n > most {
		return n
	}
	return 0
}
