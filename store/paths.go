package store

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// paths has the paths of a File's data and manifest. Both are first written under a temporary name.
type paths struct {
	dataPath     string // feedback.json
	manifestPath string // feedback.manifest.json
	tmpWord      string // word in temporary names that only this process uses; "" on a local file system (see share.go)
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

// ownTmp returns a temporary path for the file at path. Only this process uses it.
func (p paths) ownTmp(path string) string { return hidden(path) + "-" + p.tmpWord + ".tmp" }

// ManifestPath returns the path of the manifest of the file at path: x.manifest.json for x.json. If path is a symbolic link,
// the manifest is next to the link's target.
func ManifestPath(path string) string { return manifestPath(followLink(path)) }

func manifestPath(path string) string { return strings.TrimSuffix(path, ".json") + ".manifest.json" }

// followLink returns the target of path if path is a symbolic link, even if the target does not exist yet; otherwise it returns
// path. It does not resolve links in the folder's path, because the folder may be replaced while capture runs.
func followLink(path string) string {
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

// isMissing reports whether err says that a file does not exist.
func isMissing(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// pathExists reports whether path names anything, even a dangling link.
func pathExists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
