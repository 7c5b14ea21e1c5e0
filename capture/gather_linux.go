package capture

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// waiting is how many bytes a read would find; 0 where the system does not say.
func waiting(raw syscall.RawConn) (n int) {
	_ = raw.Control(func(fd uintptr) { n, _ = unix.IoctlGetInt(int(fd), unix.TIOCINQ) })
	return n
}

// wakeFrom has nobody woken before so many bytes wait, or the end of the stream. It is a hint: an error changes nothing.
func wakeFrom(raw syscall.RawConn, bytes int) {
	_ = raw.Control(func(fd uintptr) { _ = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, bytes) })
}
