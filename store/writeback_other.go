//go:build !linux

package store

import "os"

// startWriteback does nothing, because only Linux has sync_file_range(2).
func startWriteback(*os.File, int64, int64) {}
