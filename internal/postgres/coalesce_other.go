//go:build !linux

package postgres

import "syscall"

// bytesWaiting always returns idleBytes, so that stopIfIdle does not turn the delay off. The delay is safe: on these
// systems, capture sets no low-water mark, so a read returns as soon as any data has arrived.
func bytesWaiting(syscall.RawConn) int { return idleBytes }

func setReceiveLowWater(syscall.RawConn, int) {}
