//go:build !linux

package disk

import "os"

// DirectAlign is the alignment that direct I/O would need, in bytes.
const DirectAlign = 4096

// SupportsDirectIO reports false, because capture uses direct I/O only on Linux.
func SupportsDirectIO(string) bool { return false }

// SetDirectIO reports false, because capture uses direct I/O only on Linux.
func SetDirectIO(*os.File) bool { return false }

// AlignedBuffer returns n bytes. They need no alignment, because capture uses direct I/O only on Linux.
func AlignedBuffer(n int) []byte { return make([]byte, n) }
