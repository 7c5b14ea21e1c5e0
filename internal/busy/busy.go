// Package busy makes the time limits of tests fit the machine. A promise such as "stops within two seconds" holds for a
// machine with a free processor. If ten processes share a processor, everything takes ten times as long.
package busy

import (
	"fmt"
	"os"
	"runtime"
	"time"
)

// most is the largest factor. With this factor, a test that waits for a minute still fails before go test's own timeout.
const most = 10

// Limit returns the limit for something that takes up to d on a machine with a free processor. The limit is d times the
// number of runnable threads per processor, but at least d and at most ten times d. The number of threads is the current
// number or the average over a minute, whichever is greater. On systems without /proc/loadavg, Limit returns d.
func Limit(d time.Duration) time.Duration {
	text, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return d
	}
	var minute, other float64
	var running int
	if _, err := fmt.Sscanf(string(text), "%g %g %g %d/", &minute, &other, &other, &running); err != nil {
		return d
	}
	share := max(minute, float64(running)) / float64(runtime.NumCPU())
	return time.Duration(float64(d) * min(max(1, share), most))
}
