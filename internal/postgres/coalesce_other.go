//go:build !linux

package postgres

import "syscall"

// bytesWaiting returns idleBytes, so stopIfIdle keeps the delay on. That is safe, because these systems have no low-water mark
// that could block the next read.
func bytesWaiting(syscall.RawConn) int { return idleBytes }

func setReceiveLowWater(syscall.RawConn, int) {}
