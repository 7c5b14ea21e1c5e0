package store

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// isMountPoint reports whether the file at path is mounted by itself, as a container's volume of a single file is. Such a file can't be
// replaced: rename(2) refuses it. It reports false if that is not known, as on Linux before 5.8.
func isMountPoint(path string) bool {
	var file, folder unix.Statx_t
	for at, st := range map[string]*unix.Statx_t{path: &file, filepath.Dir(path): &folder} {
		if err := unix.Statx(unix.AT_FDCWD, at, 0, unix.STATX_MNT_ID, st); err != nil || st.Mask&unix.STATX_MNT_ID == 0 {
			return false
		}
	}
	return file.Mnt_id != folder.Mnt_id
}
