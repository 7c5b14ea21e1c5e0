//go:build !linux

package disk

import (
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// addMode does not follow a link that somebody puts in the place of the file meanwhile.
func addMode(path string, bits fs.FileMode) {
	if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && info.Mode()&bits != bits {
		unix.Fchmodat(unix.AT_FDCWD, path, uint32(info.Mode().Perm()|bits), unix.AT_SYMLINK_NOFOLLOW)
	}
}
