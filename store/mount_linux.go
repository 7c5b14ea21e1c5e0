package store

import (
	"path/filepath"

	"golang.org/x/sys/unix"
)

// isMountPoint reports whether the file itself is a mount point, such as a container's volume that is a single file.
// rename(2) cannot replace such a file. If the kernel does not report mounts, as on Linux before 5.8, isMountPoint reports
// false.
func isMountPoint(path string) bool {
	var file, folder unix.Statx_t
	for at, st := range map[string]*unix.Statx_t{path: &file, filepath.Dir(path): &folder} {
		if err := unix.Statx(unix.AT_FDCWD, at, 0, unix.STATX_MNT_ID, st); err != nil || st.Mask&unix.STATX_MNT_ID == 0 {
			return false
		}
	}
	return file.Mnt_id != folder.Mnt_id
}
