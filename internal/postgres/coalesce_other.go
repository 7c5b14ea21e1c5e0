//go:build !linux

package postgres

import "syscall"

// bytesWaiting returns idleBytes, with which the delay stays on: only Linux has a low-water mark that a read could wait for.
func bytesWaiting(syscall.RawConn) int { return idleBytes }

func setReceiveLowWater(syscall.RawConn, int) {}
