package disk

import (
	"errors"
	"io"
	"os"
	"syscall"
)

// CreateLike creates an empty file at path. If like is not nil, the new file gets the mode and, if permitted, the owner of the
// file that like describes. In any case, the owner may read the new file. CreateLike first removes whatever exists at path. It
// never opens what exists there, because that may be a link.
func CreateLike(path string, like os.FileInfo) (*os.File, error) {
	if err := os.Remove(path); err != nil && !IsMissing(err) {
		return nil, err
	}
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o640)
	if err != nil {
		return nil, err
	}
	if like != nil {
		if st, ok := like.Sys().(*syscall.Stat_t); ok {
			file.Chown(int(st.Uid), int(st.Gid)) // Chown may need root; if it fails, the file belongs to us, which is good enough
		}
		if err := file.Chmod(like.Mode().Perm() | OwnerRead); err != nil && !errors.Is(err, os.ErrPermission) {
			file.Close()
			os.Remove(path)
			return nil, err
		}
	}
	return file, nil
}

// StatRegular describes the regular file at path. It returns nil if there is no such file.
func StatRegular(path string) os.FileInfo {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	return info
}

// WriteSynced creates a file at path as CreateLike does, calls write to fill the file, and syncs it.
func WriteSynced(path string, like os.FileInfo, write func(*os.File) error) error {
	file, err := CreateLike(path, like)
	if err != nil {
		return err
	}
	defer file.Close()
	if err := write(file); err != nil {
		return err
	}
	return SyncAndClose(file)
}

// SyncAndClose syncs the file and closes it, even if the sync fails.
func SyncAndClose(file *os.File) error {
	err := file.Sync()
	if closeErr := file.Close(); err == nil {
		err = closeErr
	}
	return err
}

// CopyFile copies the file at path to a new file, and syncs the new file. The new file gets the mode and, if permitted, the
// owner of the old file.
func CopyFile(path, to string) error {
	from, err := OpenRegular(path)
	if err != nil {
		return err
	}
	defer from.Close()
	err = WriteSynced(to, StatRegular(path), func(w *os.File) error {
		_, err := io.Copy(w, from)
		return err
	})
	if err != nil {
		os.Remove(to)
	}
	return err
}

// HasNoLinks reports whether err, an error of [os.Link], means that the file system cannot make this hard link.
func HasNoLinks(err error) bool {
	for _, noLinks := range []error{syscall.EPERM, syscall.EOPNOTSUPP, syscall.ENOSYS, syscall.EMLINK} {
		if errors.Is(err, noLinks) {
			return true
		}
	}
	return false
}

// IsFull reports whether err means that the volume or a quota is full.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT)
}
