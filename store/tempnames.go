package store

import (
	"path/filepath"

	"capture/store/disk"
	"capture/store/manifest"
)

// paths has the paths of a File's data and manifest. Both are first written under a temporary name.
type paths struct {
	dataPath     string // feedback.json
	manifestPath string // feedback.manifest.json
	tmpWord      string // word that only this process uses in temporary names; "" on a local file system (see networkshare.go)
}

func newPaths(path string) paths {
	return paths{dataPath: path, manifestPath: manifest.Path(path)}
}

func (p paths) folder() string { return filepath.Dir(p.dataPath) }

func (p paths) manifestTmp() string { return p.manifestPath + ".tmp" }

func (p paths) dataTmp() string {
	if p.tmpWord == "" {
		return p.dataPath + ".tmp"
	}
	return p.ownTmp(p.dataPath)
}

// ownTmp returns a temporary path for the file at path. Only this process uses it.
func (p paths) ownTmp(path string) string { return disk.Hidden(path) + "-" + p.tmpWord + ".tmp" }

// adopted is the suffix that adoptTmp adds to the name of the file.
const adopted = ".adopted"

// adoptTmp returns the temporary path to which File.Adopt writes a state.
func (p paths) adoptTmp() string {
	if p.tmpWord == "" {
		return disk.Hidden(p.dataPath) + adopted + ".tmp"
	}
	return p.ownTmp(p.dataPath + adopted)
}
