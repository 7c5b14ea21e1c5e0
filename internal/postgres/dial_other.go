//go:build !linux

package postgres

import "syscall"

// setUserTimeout does nothing: the option exists on Linux only. Keepalive and the readers' deadlines remain.
func setUserTimeout(_, _ string, _ syscall.RawConn) error { return nil }
