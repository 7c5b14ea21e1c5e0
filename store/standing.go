package store

import "os"

// standing has the identities of feedback.json and its manifest as capture last left them or as Open found them. They also say
// which mode and owner new files get: those that capture has chosen, or that somebody has given to capture's own files. If
// somebody replaces capture's files by others, the modes of these others do not count, because they may let more people read
// the rows.
type standing struct {
	data, manifest os.FileInfo // nil if there was no regular file
	intact         bool        // whether the file matched its manifest
}

// dataLike returns the file whose mode and owner a new version of feedback.json gets, or nil for the defaults.
func (f *File) dataLike() os.FileInfo { return newestInfo(f.dataPath, f.standing.data) }

// manifestLike returns the file whose mode and owner a new manifest gets, or nil for the defaults.
func (f *File) manifestLike() os.FileInfo { return newestInfo(f.manifestPath, f.standing.manifest) }

// newestInfo describes the file at path if it is still the known file. Otherwise it returns known.
func newestInfo(path string, known os.FileInfo) os.FileInfo {
	if info, err := os.Lstat(path); err == nil && known != nil && os.SameFile(info, known) && info.Size() == known.Size() {
		return info
	}
	return known
}
