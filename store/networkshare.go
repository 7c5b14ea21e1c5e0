package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"time"

	"capture/store/disk"
)

// A network share differs from a local file system in two respects:
//
//   - A lock may fail to exclude other processes, so two processes may both believe that they have it. Each process uses its
//     own temporary names, which contain the random word of its lock, so no process renames the unfinished file of another
//     process to feedback.json. In addition, the check of the word (lockword.go) stops one of the two processes.
//   - The share may refuse to replace a file that somebody has open (SMB). A rename is repeated for some time, because
//     readers usually need feedback.json only briefly.
//
// Files are patched only on ext4 and XFS, so on a share each version is written whole.

// share has the state that a File needs only on a network share. On a local file system, the *share is nil.
type share struct {
	blocked time.Duration // total time that renames have waited for readers since the last Result
}

// renamePatience is the maximum time that a rename waits for readers. It is short, because a clean stop must end within two
// seconds. renamePause is the maximum pause between two attempts.
const (
	renamePatience = time.Second
	renamePause    = 50 * time.Millisecond
)

// rename renames the file at the first path (old) to the second path, and replaces the file that was there.
func (s *share) rename(old, path string) error {
	err := os.Rename(old, path)
	if s == nil || !isBlocked(err) {
		return err
	}
	start := time.Now()
	for pause := time.Millisecond; isBlocked(err) && time.Since(start) < renamePatience; pause = min(2*pause, renamePause) {
		time.Sleep(pause)
		err = os.Rename(old, path)
	}
	s.blocked += time.Since(start)
	if isBlocked(err) {
		// Not %w: volume.WithHint would add a hint about permissions to EACCES. Permissions are not the problem here, because
		// the temporary file could be created in the same folder.
		return fmt.Errorf("%v; a reader seems to have %s open, and this network share does not replace an open file: "+
			"capture tries again; end that reader if it keeps the file open", err, filepath.Base(path))
	}
	return err
}

// isBlocked reports whether err may mean that an SMB server refuses to replace an open file. Linux reports this as EACCES,
// EBUSY or, in older kernels, ETXTBSY.
func isBlocked(err error) bool {
	return errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.ETXTBSY)
}

// takeWarning returns a warning about readers that have delayed renames since the last call, or "" if there were none.
func (s *share) takeWarning(path string) string {
	if s == nil || s.blocked == 0 {
		return ""
	}
	blocked := s.blocked
	s.blocked = 0
	return fmt.Sprintf("a reader with an open file kept %s from being replaced for %d ms; this network share does not replace open files",
		path, blocked.Milliseconds())
}

// IsOnDisk reports whether the folder is on a disk of this machine: neither on a network share nor in memory.
func (f *File) IsOnDisk() bool {
	fs := fileSystemAt(f.folder())
	return fs.IsLocal && fs.Name != "tmpfs" && fs.Name != "ramfs"
}

// useFileSystem sets the temporary names for the file system of the folder, and removes the temporary files of earlier
// processes. On a share it returns a warning about what the share cannot do, or "" if there is nothing to warn of.
func (f *File) useFileSystem() (warning string) {
	fs := fileSystemAt(f.folder())
	f.share, f.paths.tmpWord = nil, ""
	if !fs.IsLocal {
		f.share, f.paths.tmpWord = &share{}, f.lock.word
	}
	f.temp = tempFile{path: f.dataTmp(), target: f.dataPath, lock: f.lock, share: f.share}
	os.Remove(f.dataTmp()) // if the file cannot be removed, Write fails and reports the reason
	f.removeForeignTemp()
	if fs.IsLocal {
		return ""
	}
	var found []string
	if o := f.lock.earlier; o.Host != "" && o.Host != f.lock.owner.Host {
		found = append(found, fmt.Sprintf("the lock file names process %d on host %q: if that capture still runs, it will stop writing the file", o.PID, o.Host))
	}
	if fs, err := ProbeFileSystem(f.folder()); err == nil {
		if !fs.LocksHold {
			found = append(found, "locks do not hold there: nothing but the lock file's content keeps a second capture away")
		}
		if !fs.ReplacesOpenFiles {
			found = append(found, "it does not replace a file that a reader has open: writes wait for readers")
		}
	}
	if found == nil {
		return ""
	}
	return fmt.Sprintf("%s is on a network share (%s); %s", f.dataPath, fs.Name, strings.Join(found, "; "))
}

// removeForeignTemp removes the temporary files that other processes have left, for example in a crash. Their names contain the
// random word of the lock of their process. If such a process is still running, its next rename fails, because its file is
// gone. The process then finds that it has lost the lock file.
func (f *File) removeForeignTemp() {
	entries, err := os.ReadDir(f.folder())
	if err != nil {
		return
	}
	for _, e := range entries {
		base, ok := strings.CutPrefix(e.Name(), ".")
		if !ok || !e.Type().IsRegular() {
			continue
		}
		for _, path := range []string{f.dataPath, f.dataPath + adopted, f.manifestPath} {
			if rest, ok := strings.CutPrefix(base, filepath.Base(path)); ok && ownTmpSuffix.MatchString(rest) {
				os.Remove(filepath.Join(f.folder(), e.Name()))
			}
		}
	}
}

var ownTmpSuffix = regexp.MustCompile(`^-[0-9a-f]{16}\.tmp$`)

// writeManifestOnShare writes the pending manifest, first under a name that only this process uses. Therefore a reader that
// opens the pending manifest always finds it complete.
func (f *File) writeManifestOnShare(write func(*os.File) error) error {
	own := f.ownTmp(f.manifestPath)
	err := disk.WriteSynced(own, f.standing.manifestLike(), write)
	if err == nil {
		err = f.share.rename(own, f.manifestTmp())
	}
	if err != nil {
		os.Remove(own)
	}
	return err
}
