package disk

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// CreateFolder creates the folder dir and its parents if they are missing, and syncs the parent of each new folder. Without
// this sync, a power cut could remove the new folder with all synced files in it. If the sync fails, CreateFolder removes
// the new folder again.
func CreateFolder(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := CreateFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o750); err != nil {
		if info, serr := os.Stat(dir); serr == nil && info.IsDir() {
			return nil // another process created it first
		} else if errors.Is(err, os.ErrExist) {
			return &os.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return err
	}
	err := SyncFolder(parent)
	if errors.Is(err, os.ErrPermission) { // capture may write to the parent, but may not open it for the sync
		return nil
	}
	if err != nil {
		os.Remove(dir)
	}
	return err
}

// SyncFolder makes the names in the folder durable. A rename is atomic, but until its folder is synced, a power cut may undo it
// (rename(2), fsync(2)).
func SyncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // EINVAL: this file system cannot sync folders
		return err
	}
	return nil
}

// OthersMayWrite reports whether every user of the machine may create files in the folder dir.
func OthersMayWrite(dir string) bool {
	info, err := os.Stat(dir)
	return err == nil && info.Mode().Perm()&0o002 != 0
}
