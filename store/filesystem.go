package store

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// FileSystem is what is known of the file system under a folder.
type FileSystem struct {
	Name    string // such as "ext4", "NFS" or "SMB"
	IsLocal bool   // whether only this machine writes to it, so its kernel knows all locks and open files

	// The following are false until [ProbeFileSystem] has tried them out.

	LocksHold         bool // whether a file that is locked can't be locked again
	ReplacesOpenFiles bool // whether a file can be replaced by a rename while somebody has it open
}

// ProbeFileSystem finds out what the file system under the folder dir can do. For that it creates two small files of a random name in
// the folder and removes them. If it can't create them, the error says why, and the result has the name alone.
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
