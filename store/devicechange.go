package store

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"capture/store/disk"
)

// When a volume is unmounted, an ordinary folder may remain in its place. A file written to that folder does not reach the
// volume. Therefore a File remembers the device of its folder, and checks the device before it writes.

// checkDevice returns an error if the folder is on another device than at Open. It accepts another device if the folder's
// lock file contains our word (see lockword.go), because this shows that the volume has been mounted again. If the folder is
// missing, checkDevice uses the device of the nearest existing folder above it.
func (f *File) checkDevice() error {
	device, ok := deviceOf(f.folder())
	switch {
	case !ok:
		return nil // the caller's next step reports what is wrong with the folder
	case device == f.device:
		if f.detached {
			f.detached = false
			f.kept.Reload()
		}
		return nil
	case f.lock.hasWord(lockPath(f.dataPath)):
		f.device, f.detached = device, false
		f.kept.Reload()
		return nil
	}
	f.detached = true
	return fmt.Errorf("the folder %s is on another device than at the start: its volume was unmounted or replaced; "+
		"mount that volume again, or restart capture to write here", f.folder())
}

// deviceOf returns the device of the folder at path. If the folder is missing, it returns the device of the nearest existing
// folder above it.
func deviceOf(path string) (device uint64, ok bool) {
	for {
		info, err := os.Stat(path)
		if err == nil {
			st, ok := info.Sys().(*syscall.Stat_t)
			if !ok {
				return 0, false
			}
			return uint64(st.Dev), true
		}
		parent := filepath.Dir(path)
		if !disk.IsMissing(err) || parent == path {
			return 0, false
		}
		path = parent
	}
}

// hasWord reports whether the lock file at path has our word.
func (l *lock) hasWord(path string) bool {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return false
	}
	defer file.Close()
	return l.word != "" && readLockContent(file).Word == l.word
}
