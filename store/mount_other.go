//go:build !linux

package store

func isMountPoint(string) bool { return false }
