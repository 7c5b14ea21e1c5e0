package store

import (
	"errors"
	"os"
	"syscall"
)

// createLike creates an empty file at path. If there is a regular file at like, the new file gets its mode and, if permitted,
// its owner. createLike first removes what exists at path, and never opens it, because it may be a link.
func createLike(path, like string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !isMissing(err) {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, err
	}
	if info, err := os.Lstat(like); err == nil && info.Mode().IsRegular() {
		if st, ok := info.Sys().(*syscall.Stat_t); ok {
			file.Chown(int(st.Uid), int(st.Gid)) // needs root; otherwise the file belongs to us, which is as good
		}
		if err := file.Chmod(info.Mode().Perm()); err != nil && !errors.Is(err, os.ErrPermission) {
			file.Close()
			os.Remove(path)
			return nil, err
		}
	}
	return file, nil
}

// writeSynced creates a file at path like createLike, calls write to fill it, and syncs it.
func writeSynced(path, like string, write func(*os.File) error) error {
	file, err := createLike(path, like)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := write(file); err != nil {
		return err
	}
	return syncAndClose(file)
}

func syncAndClose(file *os.File) error {
	if err := file.Sync(); err != nil {
		return err
	}
	return file.Close()
}
