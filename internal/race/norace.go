//go:build !race

// Package race tells tests whether they run with the race detector. The race detector makes tests several times slower. It
// finds nothing in a test that uses only one goroutine, so such a test can do less when the race detector is on.
package race

// Enabled reports whether the program was built with the race detector.
const Enabled = false
