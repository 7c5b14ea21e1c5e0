package store

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"capture/internal/volume"
	"capture/store/disk"
	"capture/store/kept"
	"capture/store/loss"
	"capture/store/manifest"
)

// File is feedback.json with its manifest and its lock. Its methods may be called from any goroutine. Methods that change
// feedback.json or its manifest run one at a time. But while ReadBack, Load, Adopt or WriteAhead does long work, other methods
// may run.
type File struct {
	paths
	captureVersion string // version of capture, for the manifest
	lock           *lock
	share          *share // network share that the file is on; nil on a local file system
	published      published

	mu         sync.Mutex
	closed     bool
	existing   existing // what was on disk before the first Write
	standing   standing
	last       written  // what the last Write left on disk; zero if that Write failed or there was no Write
	temp       tempFile // temporary name of feedback.json, and the file with this name
	hasWritten bool     // whether a Write since Open has replaced the file, or found that the file has the same rows
	renamed    bool     // whether the last Write renamed the data and then failed, perhaps before it renamed the manifest
	rowCounts  loss.RowCounts
	device     uint64 // device of the folder, as stat(2) reports it
	detached   bool   // whether the folder was on another device at the last check
	doubtful   uint64 // version of the last View whose horizon must not be used; see DropHorizon
	warning    string // warning for the next Result; "" if there is none

	kept *kept.States
}

// Open locks the file at path, creates its folder if it is missing, and checks the files that it finds: it completes a Write
// that a crash interrupted, and compares the file with its manifest. For a file of more than 64 MB, Open compares only the
// sizes, and the first Write compares the content. A damaged file is not an error: the first Write keeps the file under another
// name, and the Result has a warning. Open refuses a symbolic link, because whoever made the link would choose which file is
// overwritten.
//
// If another process has the lock, the error is a [*LockedError].
func Open(path string, o Owner) (*File, error) {
	f := &File{paths: newPaths(path), captureVersion: o.Version}
	if err := f.open(o); err != nil {
		if errors.As(err, new(*LockedError)) {
			return nil, err
		}
		return nil, fmt.Errorf("open %s: %w", path, volume.WithHint(err))
	}
	return f, nil
}

func (f *File) open(o Owner) error {
	info, err := os.Lstat(f.dataPath)
	switch {
	case err == nil && info.Mode()&os.ModeSymlink != 0:
		return fmt.Errorf("it is a symbolic link, which capture does not follow; name the file itself for --output, %s, or remove the link", disk.FollowLink(f.dataPath))
	case err == nil && !info.Mode().IsRegular():
		return errors.New("it is not a regular file; name a file for --output, or remove what is there")
	}
	if isMountPoint(f.dataPath) {
		return fmt.Errorf("the file is mounted by itself, so it can't be replaced; mount its folder %s instead", f.folder())
	}
	if err := disk.CreateFolder(f.folder()); err != nil {
		return err
	}
	f.device, _ = deviceOf(f.folder())
	l, err := acquireLock(f.dataPath, o)
	if err != nil {
		return err
	}
	f.lock = l
	f.warn(f.useFileSystem())
	os.Remove(f.adoptTmp())
	f.letOwnerRead()
	f.inspectExisting(hashAtOpen)
	f.standing = findStanding(f.paths, f.existing.intact)
	if f.existing.intact && f.standing.data.FileInfo != nil {
		f.published.add(f.standing.data.FileInfo)
	}
	accepted := f.existing.manifest.AcceptedAt // preferred to WrittenAt, because the wall clock may have been wrong at the write
	if accepted.IsZero() {
		accepted = f.existing.manifest.WrittenAt
	}
	f.kept = kept.Open(f.dataPath, f.paths.tmpWord, accepted)
	if f.existing.intact {
		f.rowCounts = loss.RowCountsOf(&f.existing.manifest, time.Now())
	}
	return nil
}

// published holds the last two files that were renamed to feedback.json. While the newer file replaces the older file,
// readers may have either file open.
type published struct {
	mu    sync.Mutex
	files [2]os.FileInfo // newest first; an element is nil if there were fewer files
}

func (p *published) add(info os.FileInfo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files = [2]os.FileInfo{info, p.files[0]}
}

// Published reports whether info describes feedback.json as this File wrote it, or as Open found it intact. It reports false
// for a file that another program put in its place.
func (f *File) Published(info os.FileInfo) bool {
	f.published.mu.Lock()
	defer f.published.mu.Unlock()
	for _, ours := range f.published.files {
		// The sizes are compared, too: another file may get the inode of a deleted file, but will hardly have the same size.
		if ours != nil && os.SameFile(info, ours) && info.Size() == ours.Size() {
			return true
		}
	}
	return false
}

// Kept returns the kept states of the file. Their methods may run at the same time as those of f.
func (f *File) Kept() *kept.States { return f.kept }

// Path returns the path of feedback.json.
func (f *File) Path() string { return f.dataPath }

// Existing returns the manifest of the file that Open found. It reports false if there was no file, or if the file did not
// match its manifest. For a file of more than 64 MB, Open compared only the sizes; the first Write compares the content.
func (f *File) Existing() (manifest.Manifest, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.existing.manifest, f.existing.intact
}

// SetListen records the address of the owner's HTTP server in the lock file, where [ReadOwner] finds it.
func (f *File) SetListen(addr string) error {
	if err := f.lock.setListen(addr); err != nil {
		return fmt.Errorf("write the lock file of %s: %w", f.dataPath, volume.WithHint(err))
	}
	return nil
}

// Close waits for a running Write, removes the temporary file and releases the lock. The lock file stays, but is emptied.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.temp.discard()
	return f.lock.release()
}

// ensureLocked returns an error unless this process may write. It recreates the folder if it is missing, takes the lock again
// if the lock file was replaced, and inspects the files on disk if they have not been inspected.
func (f *File) ensureLocked() error {
	if f.closed {
		return os.ErrClosed
	}
	if err := f.checkDevice(); err != nil {
		return err
	}
	if err := disk.CreateFolder(f.folder()); err != nil {
		return err
	}
	replaced, err := f.lock.reacquireIfReplaced()
	if err != nil {
		return err
	}
	if replaced { // the folder may have been replaced, too, so nothing that was recorded about the old files is valid
		f.temp.abandon()
		f.warn(f.useFileSystem())
		f.existing, f.last, f.hasWritten, f.renamed = existing{}, written{}, false, false
		f.kept.Reload()
	}
	if err := f.completeRename(); err != nil {
		return err
	}
	f.letOwnerRead()
	if !f.existing.checked || f.isOtherFile() {
		f.inspectExisting(hashAll)
		if f.hasWritten {
			// With the manifest of the last Write, this is capture's own file, which somebody has only touched or copied.
			f.existing.foreign = f.existing.intact && !f.existing.manifest.WrittenAt.Equal(f.last.manifest.WrittenAt)
		} else {
			f.last = written{} // loading the earlier run's file sets f.last, too, and that file may be gone
		}
	}
	return nil
}

// isOtherFile reports whether another program has put a file in place since the last Write or, before the first Write, since
// the last inspection. Only an inspection finds out whether the next Write must keep this file, and which manifest describes
// it.
func (f *File) isOtherFile() bool {
	data, err := os.Lstat(f.dataPath)
	if f.hasWritten && (f.last.file == nil || err == nil && (!data.Mode().IsRegular() || isSameVersion(data, f.last.file))) {
		return false // the last Write has failed, or the file has stayed, or nothing is there that could be kept
	}
	if err != nil || f.standing.intact && f.standing.data.isUntouched(f.dataPath, data) {
		return false // the file is missing or unchanged, so no other program has put a file in place
	}
	return !f.existing.found.isInPlace()
}

// completeRename renames the pending manifest if the last Write failed between its two renames. Until the rename, only the
// pending manifest describes the file, so nothing may replace the pending manifest.
func (f *File) completeRename() error {
	if !f.renamed {
		return nil
	}
	err := f.lock.verify()
	if err == nil {
		err = f.renameManifest()
	}
	// The pending manifest is missing if an earlier attempt has already renamed it, and failed only in the sync of the folder.
	if err != nil && !disk.IsMissing(err) {
		return err
	}
	if err := disk.SyncFolder(f.folder()); err != nil {
		return err
	}
	f.renamed = false
	return nil
}

// renameManifest gives the pending manifest its final name.
func (f *File) renameManifest() error {
	known := findFile(f.manifestTmp())
	if err := f.share.rename(f.manifestTmp(), f.manifestPath); err != nil {
		return err
	}
	f.standing.manifest = known
	return nil
}

func (f *File) inspectExisting(hashLimit int64) {
	found := findStanding(f.paths, false) // taken before the inspection, so that a change during the inspection is noticed
	var warning string
	f.existing, warning = inspectExisting(f.paths, hashLimit)
	f.existing.found = found
	f.warn(warning)
}

// warn adds a sentence to the next Result's warning, unless the warning already contains it. An empty sentence adds nothing.
func (f *File) warn(sentence string) {
	switch {
	case f.warning == "":
		f.warning = sentence
	case !strings.Contains(f.warning, sentence):
		f.warning += "; " + sentence
	}
}
