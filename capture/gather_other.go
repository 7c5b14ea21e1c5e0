//go:build !linux

package capture

import "syscall"

// waiting is more than naps end at: elsewhere than on Linux nobody is woken later than usual.
func waiting(syscall.RawConn) int { return thin }

func wakeFrom(syscall.RawConn, int) {}
