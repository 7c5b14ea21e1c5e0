package store

import (
	"fmt"
	"io/fs"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Volume is how full one of the folders that capture writes to is, and the file system under it.
type Volume struct {
	Name       string `json:"name"`
	Path       string `json:"path"`
	Bytes      int64  `json:"bytes"`       // of the files in the folder
	Size       int64  `json:"size"`        // of the file system, in bytes
	Free       int64  `json:"free"`        // of it, to capture's user
	Inodes     int64  `json:"inodes"`      // of the file system; 0 where it has no fixed number
	FreeInodes int64  `json:"free_inodes"` // of them
}

// MeasureVolume looks at the folder path. The error says what could not be read; a missing folder is fs.ErrNotExist.
func MeasureVolume(name, path string) (Volume, error) {
	v := Volume{Name: name, Path: path}
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return v, fmt.Errorf("measure volume %s: %s: %w", name, path, err)
	}
	block := int64(st.Bsize)
	v.Size, v.Free = int64(st.Blocks)*block, int64(st.Bavail)*block
	v.Inodes, v.FreeInodes = int64(st.Files), int64(st.Ffree)
	err := filepath.WalkDir(path, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return nil // what vanishes or can't be seen is not counted
		}
		if info, err := e.Info(); err == nil && info.Mode().IsRegular() {
			v.Bytes += info.Size()
		}
		return nil
	})
	if err != nil {
		return v, fmt.Errorf("measure volume %s: %s: %w", name, path, err)
	}
	return v, nil
}

// UsedPercent is how much of the file system is taken, by bytes or by inodes, whichever is more.
func (v *Volume) UsedPercent() float64 {
	used := 0.0
	if v.Size > 0 {
		used = 100 * float64(v.Size-v.Free) / float64(v.Size)
	}
	if v.Inodes > 0 {
		used = max(used, 100*float64(v.Inodes-v.FreeInodes)/float64(v.Inodes))
	}
	return used
}
