//go:build !linux

package disk

func lowerPriority() {}
