//go:build !linux

package postgres

import "syscall"

// setUserTimeout does nothing, because the option TCP_USER_TIMEOUT exists on Linux only. On other systems, keepalive and the
// readers' deadlines detect a dead peer.
func setUserTimeout(_, _ string, _ syscall.RawConn) error { return nil }
