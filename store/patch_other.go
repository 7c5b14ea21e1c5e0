//go:build !linux

package store

import "os"

const spareAlign = 4096

// Elsewhere there are no leases on files: each version is written whole.

func openSpare(string, os.FileInfo, string) *os.File { return nil }

func pastCache(*os.File) bool { return false }

func cloneFile(*os.File, string) bool { return false }

func exchange(string, string) (bool, error) { return false, nil }

func alignedBuffer(n int) []byte { return make([]byte, n) }
