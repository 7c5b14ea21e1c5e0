//go:build !linux

package store

func lowerPriority() {}
