package cgroup

import (
	"math"
	"testing"
	"testing/fstest"
)

// TestMemoryLimitOfControlGroups checks the limits that groupLimit reads from control groups of versions 1 and 2.
func TestMemoryLimitOfControlGroups(t *testing.T) {
	t.Parallel()
	file := func(s string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(s)} }
	for _, c := range []struct {
		name string
		fs   fstest.MapFS
		want int64
	}{
		{"no control group", fstest.MapFS{}, math.MaxInt64},
		{"no limit", fstest.MapFS{"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("max\n")}, math.MaxInt64},
		{"a container's limit", fstest.MapFS{"proc/self/cgroup": file("0::/\n"), "sys/fs/cgroup/memory.max": file("536870912\n")}, 536870912},
		{"a parent has a lower limit", fstest.MapFS{
			"proc/self/cgroup":                                      file("0::/system.slice/capture.service\n"),
			"sys/fs/cgroup/system.slice/memory.max":                 file("1000\n"),
			"sys/fs/cgroup/system.slice/capture.service/memory.max": file("2000\n"),
		}, 1000},
		{"version 1", fstest.MapFS{"proc/self/cgroup": file("9:memory:/docker/1\n"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("4096\n")}, 4096},
		{"version 1 without a limit", fstest.MapFS{"proc/self/cgroup": file("9:memory:/\n"), "sys/fs/cgroup/memory/memory.limit_in_bytes": file("9223372036854771712\n")}, math.MaxInt64},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := groupLimit(c.fs); got != c.want {
				t.Errorf("got %d, want %d", got, c.want)
			}
		})
	}
}
