//go:build !linux

package postgres

import "syscall"

// setUserTimeout has no portable counterpart; keepalive and the readers' deadlines do what they can.
func setUserTimeout(_, _ string, _ syscall.RawConn) error { return nil }
