package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// paths are where a File keeps its data and its manifest. Both are written under a temporary name first.
type paths struct {
	dataPath     string // feedback.json
	manifestPath string // feedback.manifest.json
	tmpWord      string // in temporary names that are our own; "" on a file system of this machine (see share.go)
}

func newPaths(path string) paths {
	return paths{dataPath: path, manifestPath: manifestPath(path)}
}

func (p paths) manifestTmp() string { return p.manifestPath + ".tmp" }
func (p paths) folder() string      { return filepath.Dir(p.dataPath) }

func (p paths) dataTmp() string {
	if p.tmpWord == "" {
		return p.dataPath + ".tmp"
	}
	return p.ownTmp(p.dataPath)
}

// ownTmp returns a temporary path for the file at path that only this process uses.
func (p paths) ownTmp(path string) string { return hidden(path) + "-" + p.tmpWord + ".tmp" }

// ManifestPath returns where the manifest of the file at path is: x.manifest.json for x.json. If path is a symbolic link, the
// manifest is beside the file that the link leads to.
func ManifestPath(path string) string { return manifestPath(followLink(path)) }

func manifestPath(path string) string { return strings.TrimSuffix(path, ".json") + ".manifest.json" }

// followLink returns what path leads to if it is a symbolic link, even to a file that does not exist yet; otherwise path. It
// leaves links in the folder's path alone: the folder may be swapped while capture runs.
func followLink(path string) string {
	for range 40 { // as many as Linux follows
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

// isMissing reports whether err is that a file does not exist.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// pathExists reports whether anything has the name path, a dangling link included.
func pathExists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
