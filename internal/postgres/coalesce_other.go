//go:build !linux

package postgres

import "syscall"

// bytesWaiting returns idleBytes, so stopIfIdle keeps the delay on. On these systems, no low-water mark is set that could
// block the next read.
func bytesWaiting(syscall.RawConn) int { return idleBytes }

func setReceiveLowWater(syscall.RawConn, int) {}
