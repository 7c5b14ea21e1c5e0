//go:build !linux

package postgres

import "syscall"

// bytesWaiting returns idleBytes, so stopIfIdle never turns the delay off. Without a low-water mark, a read returns as soon
// as any data has arrived.
func bytesWaiting(syscall.RawConn) int { return idleBytes }

func setReceiveLowWater(syscall.RawConn, int) {}
