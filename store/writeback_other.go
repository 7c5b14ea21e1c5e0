//go:build !linux

package store

import "os"

// startWriteback does nothing, because only Linux has this hint.
func startWriteback(*os.File, int64, int64) {}
