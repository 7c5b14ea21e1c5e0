package store

import (
	"os"

	"capture/store/disk"
)

// CheckInPlace returns why readers no longer find what capture has left on disk, or "" if they do. For example, somebody has
// removed the folder or unmounted its volume. A Write puts the file in place again, or returns the reason why it can't. Before
// the first Write, this is about the file that an earlier run left, if it was intact, and PutBack puts it in place again.
// CheckInPlace returns "" without a check if the last Write failed, because such a Write is repeated. It waits for a running
// Write.
func (f *File) CheckInPlace() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	lastFailed := f.hasWritten && f.last.file == nil
	if f.closed || lastFailed || f.standing == nil {
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
	case !os.SameFile(info, f.standing) || info.Size() != f.standing.Size():
		return "another program has replaced it"
	case !f.lock.isOwned():
		return "another program has replaced its lock file"
	}
	return ""
}
