package store

import (
	"os"

	"capture/store/disk"
)

// CheckInPlace returns why readers no longer find what the last Write left on disk, or "" if they do. For example, somebody has
// removed the folder or unmounted its volume. A Write puts the file in place again, or returns the reason why it can't. In two
// cases, CheckInPlace returns "" without a check: while a Write runs, because the Write itself makes these checks, and if the
// last Write failed.
func (f *File) CheckInPlace() string {
	if !f.mu.TryLock() {
		return ""
	}
	defer f.mu.Unlock()
	if f.closed || f.last.file == nil {
		return ""
	}
	if err := f.checkDevice(); err != nil {
		return err.Error()
	}
	info, err := os.Lstat(f.dataPath)
	switch {
	case disk.IsMissing(err):
		return "somebody has removed it"
	case err != nil:
		return err.Error()
	case !disk.Exists(f.manifestPath):
		return "somebody has removed its manifest"
	case !disk.Exists(lockPath(f.dataPath)):
		return "somebody has removed its lock file"
	case f.share != nil:
		// Some network shares give a file another inode number from time to time, so the next checks could fail wrongly.
		return ""
	case !os.SameFile(info, f.last.file) || info.Size() != f.last.file.Size():
		return "another program has replaced it"
	case !f.lock.isOwned():
		return "another program has replaced its lock file"
	}
	return ""
}
