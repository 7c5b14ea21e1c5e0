//go:build !linux

package store

import "os"

// startWriteback does nothing, because other systems have no such hint.
func startWriteback(*os.File, int64, int64) {}
