//go:build !linux

package postgres

import "syscall"

// bytesWaiting returns idleBytes, so stopIfIdle keeps the delay on. That is safe: capture sets no low-water mark on these
// systems, so the next read cannot block.
func bytesWaiting(syscall.RawConn) int { return idleBytes }

func setReceiveLowWater(syscall.RawConn, int) {}
