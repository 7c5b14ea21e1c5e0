package postgres

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// bytesWaiting returns how many bytes a read would return; 0 if the system does not know.
func bytesWaiting(raw syscall.RawConn) (n int) {
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n
}

// setReceiveLowWater sets SO_RCVLOWAT. It is a hint: without it, reads only cost more.
func setReceiveLowWater(raw syscall.RawConn, bytes int) {
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes) })
}
