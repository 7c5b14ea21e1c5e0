package postgres

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// bytesWaiting returns the number of bytes that a read would return now, or 0 if the system call fails.
func bytesWaiting(raw syscall.RawConn) (n int) {
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n
}

// setReceiveLowWater sets SO_RCVLOWAT. It ignores errors: without the mark, reads work but cost more.
func setReceiveLowWater(raw syscall.RawConn, bytes int) {
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes) })
}
