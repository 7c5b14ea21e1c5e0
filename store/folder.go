package store

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
)

// makeFolder makes the folder dir where it is missing, and those above it, each with its name safe on disk: else a power cut
// could take the folder away again, and all that was synced in it. What can't be made safe is not left there.
func makeFolder(dir string) error {
	if info, err := os.Stat(dir); err == nil && info.IsDir() {
		return nil
	}
	parent := filepath.Dir(dir)
	if parent != dir {
		if err := makeFolder(parent); err != nil {
			return err
		}
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		if info, serr := os.Stat(dir); serr == nil && info.IsDir() {
			return nil // another was faster
		} else if errors.Is(err, os.ErrExist) {
			return &os.PathError{Op: "mkdir", Path: dir, Err: syscall.ENOTDIR}
		}
		return err
	}
	err := syncFolder(parent)
	if errors.Is(err, os.ErrPermission) { // it may be written, but not read: the folder is as good
		return nil
	}
	if err != nil {
		os.Remove(dir)
	}
	return err
}

// syncFolder makes the names in the folder durable: a rename is atomic at once, but may be undone by a power cut until then.
func syncFolder(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	if err := d.Sync(); err != nil && !errors.Is(err, syscall.EINVAL) { // EINVAL: this file system has no such thing
		return err
	}
	return nil
}
