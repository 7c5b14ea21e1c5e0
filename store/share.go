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
)

// On a network share two things differ from a file system of this machine:
//
//   - Its locks may hold nothing, so two captures may believe to be alone. Each uses temporary names of its own, which have the word of
//     its lock: what one renames to feedback.json is never what the other is still writing. lockword.go ends this.
//   - It may refuse to replace a file that somebody has open (SMB). A rename is then tried for some time, because readers of a
//     feedback.json are done soon.
//
// Files are patched on ext4 and XFS only, so on a share each version is written whole.

// share is what a File needs to know of the share that it is on. A nil share is a file system of this machine.
type share struct {
	blocked time.Duration // how long readers have kept renames from being done since the last Result
}

// How long a rename waits for readers, and the longest pause between two attempts. A clean stop has to end within two seconds.
const (
	renamePatience = time.Second
	renamePause    = 50 * time.Millisecond
)

// rename renames the file old to replace the one at path.
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
		// Not %w: the permissions are right, since a file could be created beside it.
		return fmt.Errorf("%v; a reader seems to have %s open, and this network share does not replace an open file: "+
			"capture tries again; end that reader if it keeps the file open", err, filepath.Base(path))
	}
	return err
}

// isBlocked reports whether err is how Linux reports that an SMB server refuses to replace an open file: EACCES, EBUSY or, from
// older kernels, ETXTBSY.
func isBlocked(err error) bool {
	return errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EBUSY) || errors.Is(err, syscall.ETXTBSY)
}

// takeWarning returns a sentence about readers that have blocked renames since the last call; "" if none has.
func (s *share) takeWarning(path string) string {
	if s == nil || s.blocked == 0 {
		return ""
	}
	blocked := s.blocked
	s.blocked = 0
	return fmt.Sprintf("a reader with an open file kept %s from being replaced for %d ms; this network share does not replace open files",
		path, blocked.Milliseconds())
}

// useFileSystem sets the temporary names for the file system under the folder, and removes temporary files that earlier processes have
// left there. On a share it returns a sentence about what the share can't do; "" if there is nothing to say.
func (f *File) useFileSystem() (warning string) {
	fs := fileSystemAt(f.folder())
	f.share, f.paths.tmpWord = nil, ""
	if !fs.IsLocal {
		f.share, f.paths.tmpWord = &share{}, f.lock.word
	}
	f.temp = tempFile{path: f.dataTmp(), target: f.dataPath, lock: f.lock, share: f.share}
	os.Remove(f.dataTmp()) // if it can't be removed, Write fails and reports that
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

// removeForeignTemp removes temporary files with the words of other processes: what a crash left. If such a process still runs, it fails to
// rename its file, and finds that it has lost the lock file.
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
		for _, path := range []string{f.dataPath, f.manifestPath} {
			if rest, ok := strings.CutPrefix(base, filepath.Base(path)); ok && ownTmpSuffix.MatchString(rest) {
				os.Remove(filepath.Join(f.folder(), e.Name()))
			}
		}
	}
}

var ownTmpSuffix = regexp.MustCompile(`^-[0-9a-f]{16}\.tmp$`)

// writeManifestOnShare writes the pending manifest. On a share it is first written under a name of our own: the name that readers look at
// always leads to a whole manifest.
func (f *File) writeManifestOnShare(write func(*os.File) error) error {
	own := f.ownTmp(f.manifestPath)
	err := writeSynced(own, f.manifestPath, write)
	if err == nil {
		err = f.share.rename(own, f.manifestTmp())
	}
	if err != nil {
		os.Remove(own)
	}
	return err
}
