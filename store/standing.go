package store

import (
	"os"
	"time"

	"capture/store/disk"
)

// standing has the identities of feedback.json and its manifest as capture last left them or as Open found them. New files get
// the mode and owner of these two files: those that capture has chosen, or that somebody has given to capture's own files. But
// the mode of a file that another program has put in place does not count, because it may let more people read the rows.
type standing struct {
	paths          paths
	data, manifest knownFile
	intact         bool // whether the file matched its manifest
}

// findStanding returns the standing of the files at the given paths. It does not compare the file with its manifest, so the
// caller provides intact.
func findStanding(p paths, intact bool) standing {
	return standing{p, findFile(p.dataPath), findFile(p.manifestPath), intact}
}

// isInPlace reports whether each of the two files is untouched, or is still missing.
func (s *standing) isInPlace() bool {
	isSame := func(k knownFile, path string) bool {
		info := disk.StatRegular(path)
		if info == nil || k.FileInfo == nil {
			return info == nil && k.FileInfo == nil
		}
		return k.isUntouched(path, info)
	}
	return isSame(s.data, s.paths.dataPath) && isSame(s.manifest, s.paths.manifestPath)
}

// knownFile identifies a file as capture last wrote it or found it. If there was no regular file, FileInfo is nil.
type knownFile struct {
	os.FileInfo
	born time.Time // time at which the file was created; zero if the system does not report it
}

// findFile returns the regular file at path, if there is one.
func findFile(path string) knownFile { return knownFile{disk.StatRegular(path), birthTime(path)} }

// isAt reports whether k is still the file at path. The mode of the file may have changed. info must be the result of Lstat
// for path. A new file can have the inode number and the size of a file that somebody has just removed, but not its time of
// birth.
func (k knownFile) isAt(path string, info os.FileInfo) bool {
	return os.SameFile(info, k.FileInfo) && info.Size() == k.Size() && birthTime(path).Equal(k.born)
}

// isUntouched reports whether k is still the file at path and has not been changed. info must be the result of Lstat for
// path.
func (k knownFile) isUntouched(path string, info os.FileInfo) bool {
	return isSameVersion(info, k.FileInfo) && k.isAt(path, info)
}

// setData records the identity of feedback.json after capture has written it. info is the result of Lstat for the file. setData
// also records that the file matches its manifest.
func (s *standing) setData(info os.FileInfo) {
	s.data, s.intact = knownFile{info, birthTime(s.paths.dataPath)}, true
}

// dataLike returns the file whose mode and owner a new version of feedback.json gets, or nil for the defaults.
func (s *standing) dataLike() os.FileInfo { return s.data.newestInfo(s.paths.dataPath) }

// manifestLike returns the file whose mode and owner a new manifest gets, or nil for the defaults.
func (s *standing) manifestLike() os.FileInfo { return s.manifest.newestInfo(s.paths.manifestPath) }

// newestInfo returns the current FileInfo of the file at path if this file is still k, and otherwise the FileInfo in k.
func (k knownFile) newestInfo(path string) os.FileInfo {
	if info, err := os.Lstat(path); err == nil && k.isAt(path, info) {
		return info
	}
	return k.FileInfo
}

// letOwnerRead gives the owner of feedback.json and its manifest the right to read them, if somebody has taken it away. If
// capture may not change the mode, the next Write makes a new file.
func (p paths) letOwnerRead() {
	disk.AddMode(p.dataPath, disk.OwnerRead)
	disk.AddMode(p.manifestPath, disk.OwnerRead)
}

// ownerMayRead reports whether the mode of the file at path lets its owner read it.
func ownerMayRead(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&disk.OwnerRead != 0
}
