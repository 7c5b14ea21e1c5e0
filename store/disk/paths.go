package disk

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
)

// FollowLink returns the target of path if path is a symbolic link, even if the target does not exist yet. Otherwise it
// returns path. It does not resolve links in the folder's path, because somebody may replace the folder while capture runs.
func FollowLink(path string) string {
	for range 40 { // the same limit as in Linux
		target, err := os.Readlink(path)
		if err != nil {
			return path
		}
		if !filepath.IsAbs(target) {
			target = filepath.Join(filepath.Dir(path), target)
		}
		path = target
	}
	return path
}

// IsMissing reports whether err means that a file does not exist.
func IsMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// Exists reports whether path names anything, even a dangling link.
func Exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// Hidden returns path with a dot in front of the file's name.
func Hidden(path string) string { return filepath.Join(filepath.Dir(path), "."+filepath.Base(path)) }
