// Package cgroup determines how much memory this process may use.
//
// The limit of a container is the limit of its control group. The Go runtime does not read this limit. If a process does not
// set this limit as its Go memory limit, it may collect garbage too late, and the kernel then kills the process.
package cgroup

import (
	"io/fs"
	"math"
	"os"
	"path"
	"runtime/debug"
	"strconv"
	"strings"
)

// MemoryLimit returns the number of bytes of memory that this process may use: GOMEMLIMIT or the limit of its control group,
// whichever is lower. It returns [math.MaxInt64] if there is no limit.
func MemoryLimit() int64 {
	return min(debug.SetMemoryLimit(-1), groupLimit(os.DirFS("/")))
}

// groupLimit returns the lowest limit of the control groups that this process is in. It supports version 2 of control groups,
// and version 1 inside a container.
func groupLimit(root fs.FS) int64 {
	limit := int64(math.MaxInt64)
	read := func(name string) {
		if b, err := fs.ReadFile(root, name); err == nil {
			// If there is no limit, version 1 reports the highest multiple of the page size, and version 2 writes "max".
			// Both are ignored.
			if n, err := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err == nil && n < math.MaxInt64/2 {
				limit = min(limit, n)
			}
		}
	}
	read("sys/fs/cgroup/memory/memory.limit_in_bytes")
	groups, _ := fs.ReadFile(root, "proc/self/cgroup") // only Linux has this file
	for line := range strings.Lines(string(groups)) {
		group, ok := strings.CutPrefix(strings.TrimSpace(line), "0::")
		if !ok {
			continue
		}
		// In a container, this path is often the group's path on the host, while the group itself is mounted at the root of
		// sys/fs/cgroup. So also read the limits of all parents.
		for dir := path.Clean("/" + group); ; dir = path.Dir(dir) {
			read(path.Join("sys/fs/cgroup", dir, "memory.max"))
			if dir == "/" {
				break
			}
		}
	}
	return limit
}
