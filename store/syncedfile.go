package store

import (
	"errors"
	"os"
	"syscall"
)

// createLike creates an empty file at path. It gets the mode and, if permitted, the owner of the regular file at like, if
// there is one. What is at path already is removed and never opened: it may be a link.
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
			file.Chown(int(st.Uid), int(st.Gid)) // needs root; without it the file is ours, which is as good
		}
		if err := file.Chmod(info.Mode().Perm()); err != nil && !errors.Is(err, os.ErrPermission) {
			file.Close()
			os.Remove(path)
			return nil, err
		}
	}
	return file, nil
}

// writeSynced creates a file at path as createLike does, calls write to fill it, and syncs it.
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
