// Package volume measures the file systems of the folders that capture writes to. It also adds hints to the errors of file
// systems. The hints tell an operator what to do.
package volume

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Usage describes how full a folder's file system is, and how much of it capture's files use.
type Usage struct {
	Name       string `json:"name"`
	Path       string `json:"path"`
	Bytes      int64  `json:"bytes"`       // size of capture's own files in the folder
	Size       int64  `json:"size"`        // size of the file system, in bytes
	Free       int64  `json:"free"`        // bytes that capture's user may still use
	Inodes     int64  `json:"inodes"`      // inodes of the file system; 0 if their number is not fixed
	FreeInodes int64  `json:"free_inodes"` // number of free inodes
}

// Measure measures the file system of the folder at path. The caller sets Name and Bytes. If the folder does not exist, the
// error matches fs.ErrNotExist.
func Measure(path string) (Usage, error) {
	u := Usage{Path: path}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return u, fmt.Errorf("measure the volume of %s: %w", path, err)
	}
	block := int64(st.Bsize)
	u.Size, u.Free = int64(st.Blocks)*block, int64(st.Bavail)*block
	u.Inodes, u.FreeInodes = int64(st.Files), int64(st.Ffree)
	return u, nil
}

// UsedPercent returns the percentage of the file system's bytes or of its inodes that is used, whichever is greater.
func (u *Usage) UsedPercent() float64 {
	used := 0.0
	if u.Size > 0 {
		used = 100 * float64(u.Size-u.Free) / float64(u.Size)
	}
	if u.Inodes > 0 {
		used = max(used, 100*float64(u.Inodes-u.FreeInodes)/float64(u.Inodes))
	}
	return used
}

// FreeBytes returns the number of bytes that capture's user may still use on the file system of path.
func FreeBytes(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, fmt.Errorf("measure the volume of %s: %w", path, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
