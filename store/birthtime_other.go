//go:build !linux

package store

import "time"

func birthTime(string) time.Time { return time.Time{} }
