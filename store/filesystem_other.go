//go:build !linux

package store

// fileSystemAt returns a local file system. On systems other than Linux, capture is meant for development on a local disk.
var fileSystemAt = func(string) FileSystem { return FileSystem{Name: "local", IsLocal: true} }
