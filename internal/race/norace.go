//go:build !race

// Package race tells tests whether they run with the race detector. The race detector makes tests several times slower, and
// finds nothing in tests in one goroutine, so such tests can do less with it.
package race

// Enabled reports whether the program was built with the race detector.
const Enabled = false
