package store

import (
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// A volume that is unmounted leaves an ordinary folder behind, or none, and what is written there is found by nobody who looks at the
// volume. So the folder's device is remembered.

// checkDevice returns an error if the folder is on another device than at Open. A folder that is missing counts as on the device of the
// folder that it would be created in. Another device is accepted if the folder there has the lock file with our own word: then the volume has
// been mounted again.
func (f *File) checkDevice() error {
	device, ok := deviceOf(f.folder())
	switch {
	case !ok:
		return nil // whatever is wrong with the folder, what comes next will say it
	case device == f.device:
		if f.detached {
			f.detached = false
			f.kept.reload()
		}
		return nil
	case f.lock.hasWord(lockPath(f.dataPath)):
		f.device, f.detached = device, false
		f.kept.reload()
		return nil
	}
	f.detached = true
	return fmt.Errorf("the folder %s is on another device than at the start: its volume was unmounted or replaced; "+
		"mount that volume again, or restart capture to write here", f.folder())
}

// deviceOf returns the device of the folder at path or, if it is missing, of the nearest folder above it.
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
		if !isMissing(err) || parent == path {
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
