//go:build !linux

package store

import "os"

const directAlign = 4096

// Other systems have no leases on files, so each version is written whole.

func openShadow(string, os.FileInfo, string) *os.File { return nil }

func setDirectIO(*os.File) bool { return false }

func cloneFile(*os.File, string) bool { return false }

func renameExchange(string, string) (bool, error) { return false, nil }

func alignedBuffer(n int) []byte { return make([]byte, n) }
