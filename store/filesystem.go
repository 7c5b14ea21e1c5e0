package store

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FileSystem describes the file system of a folder.
type FileSystem struct {
	Name    string // name, such as "ext4", "NFS" or "SMB"
	IsLocal bool   // whether certainly no other machine uses the file system; the kernel then knows all locks and open files

	// The following fields are false until [ProbeFileSystem] has tested them.

	LocksHold         bool // whether a lock on a file prevents a second lock on it
	ReplacesOpenFiles bool // whether a rename can replace a file that somebody has open
}

// ProbeFileSystem tests the file system of the folder dir. For this it creates two small files with random names in the folder
// and then removes them. If it cannot create them, it returns an error.
func ProbeFileSystem(dir string) (FileSystem, error) {
	fs := fileSystemAt(dir)
	path, second := probePath(dir, "1"), probePath(dir, "2")
	defer os.Remove(second)
	defer os.Remove(path)
	first, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fs, err
	}
	defer first.Close()
	again, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return fs, err
	}
	defer again.Close()
	if err := flock(first, unix.LOCK_EX); err == nil {
		fs.LocksHold = errors.Is(flock(again, unix.LOCK_EX), unix.EWOULDBLOCK)
	}
	file, err := os.OpenFile(second, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fs, err
	}
	file.Close()
	fs.ReplacesOpenFiles = os.Rename(second, path) == nil
	return fs, nil
}

func probePath(dir, n string) string {
	return filepath.Join(dir, ".capture-"+newLockWord()+"-"+n+".tmp")
}
