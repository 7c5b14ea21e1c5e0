package disk

import (
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// addMode opens the file with O_PATH, which needs no right to read the file. The name of the open file in /proc always leads to
// this file. chmod(2) on path would be unsafe. After the mode was read, somebody who may write to the folder could replace the
// file by a link, and chmod would then change the mode of the link's target.
func addMode(path string, bits fs.FileMode) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return
	}
	if mode := fs.FileMode(st.Mode).Perm(); mode&bits != bits {
		os.Chmod(fmt.Sprintf("/proc/self/fd/%d", fd), mode|bits)
	}
}
