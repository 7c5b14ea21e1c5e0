package store

import (
	"fmt"
	"os"

	"capture/store/disk"
)

// CheckInPlace checks that the files that capture wrote are still in place, and that their owner may read them. It returns ""
// if both are true. Otherwise it returns the reason, for example that somebody has removed the file or unmounted its volume. A
// Write puts the file in place again, or returns the reason why it cannot.
//
// Before the first Write of a run, CheckInPlace checks the file that an earlier run left, if this file was intact. PutBack puts
// this file in place again. If the last Write failed, CheckInPlace returns "" without a check, because that Write is repeated.
// CheckInPlace waits for a running Write.
func (f *File) CheckInPlace() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	lastFailed := f.hasWritten && f.last.file == nil
	if f.closed || lastFailed || !f.standing.intact {
		return ""
	}
	if err := f.checkDevice(); err != nil {
		return err.Error()
	}
	if f.findMisplaced() == "" {
		return ""
	}
	// findMisplaced looks up each path several times, so a file that is removed in between seems to be replaced. By now, such a
	// file is missing.
	return f.findMisplaced()
}

// findMisplaced returns what is wrong if the file, its manifest or its lock file is missing, has been replaced, or may not be
// read by its owner. Otherwise it returns "".
func (f *File) findMisplaced() string {
	info, err := os.Lstat(f.dataPath)
	m, merr := os.Lstat(f.manifestPath)
	switch {
	case disk.IsMissing(err):
		return "somebody has removed it"
	case err != nil:
		return err.Error()
	case disk.IsMissing(merr):
		return "somebody has removed its manifest"
	case merr != nil:
		return merr.Error()
	case !disk.Exists(lockPath(f.dataPath)):
		return "somebody has removed its lock file"
	case f.share != nil:
		// Some network shares give a file another inode number from time to time. The checks below could then report a file that
		// nobody has touched.
		return ""
	case !f.standing.data.isAt(f.dataPath, info):
		return "another program has replaced it"
	case !isSameVersion(m, f.standing.manifest.FileInfo) || !f.standing.manifest.isAt(f.manifestPath, m):
		return "another program has replaced its manifest"
	case !ownerMayRead(f.dataPath):
		return fmt.Sprintf("its mode %04o does not let its owner read it", info.Mode().Perm())
	case !ownerMayRead(f.manifestPath):
		return fmt.Sprintf("the mode %04o of its manifest does not let the owner read the manifest", m.Mode().Perm())
	case !f.lock.isOwned():
		return "another program has replaced its lock file"
	}
	return ""
}
