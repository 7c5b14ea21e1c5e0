package store

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// createFolder creates the folder dir and its parents if they are missing, and syncs the folder above each: otherwise a power
// cut could remove the new folder with everything that was synced in it. A folder that can't be made durable is removed again.
func createFolder(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := createFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o750); err != nil {
		if info, serr := os.Stat(dir); serr == nil && info.IsDir() {
			return nil // another process was faster
		} else if errors.Is(err, os.ErrExist) {
			return &os.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return err
	}
	err := syncFolder(parent)
	if errors.Is(err, os.ErrPermission) { // parent can be written but not read, so not opened to sync it
		return nil
	}
	if err != nil {
		os.Remove(dir)
	}
	return err
}

// syncFolder makes the names in the folder durable. A rename is atomic at once, but until its folder is synced a power cut may
// undo it (rename(2), fsync(2)).
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // EINVAL: this file system does not sync folders
		return err
	}
	return nil
}

// OthersMayWrite reports whether every user of the machine may put files into the folder dir.
func OthersMayWrite(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.Mode().Perm()&0o002 != 0
}
