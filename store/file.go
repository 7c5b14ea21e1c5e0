package store

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"capture/internal/volume"
)

// File is feedback.json with its manifest and its lock. Its methods may be called from any goroutine. They run one at a time,
// except those for kept states (see keep.go), which run beside them.
type File struct {
	paths
	captureVersion string // for the manifest
	lock           *lock
	share          *share // nil on a file system of this machine
	published      published

	mu         sync.Mutex
	closed     bool
	existing   existing // what was on disk before the first Write
	last       written  // what the last Write left on disk; zero if it failed or there was none
	temp       tempFile // the temporary name of feedback.json, and what has it
	hasWritten bool     // whether a Write has succeeded since Open
	rowCounts  rowCounts
	device     uint64 // of the folder
	detached   bool   // whether the folder was on another device when it was last looked at
	warning    string // what the next Result has to say about the existing file; "" for nothing

	kept        keptStates
	compressing sync.Mutex // held while states are compressed
}

// Open takes the lock of the file at path, creates its folder if it is missing, and inspects what is there: it completes a
// Write that a crash interrupted, and compares the file with its manifest. A damaged file is no error: the first Write keeps it
// under another name, and its Result has a warning. A symbolic link is refused, since whoever made it would choose what is
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
		return fmt.Errorf("it is a symbolic link, which capture does not follow; name the file itself for --output, %s, or remove the link", followLink(f.dataPath))
	case err == nil && !info.Mode().IsRegular():
		return errors.New("it is not a regular file; name a file for --output, or remove what is there")
	}
	if isMountPoint(f.dataPath) {
		return fmt.Errorf("the file is mounted by itself, so it can't be replaced; mount its folder %s instead", f.folder())
	}
	if err := createFolder(f.folder()); err != nil {
		return err
	}
	f.device, _ = deviceOf(f.folder())
	l, err := acquireLock(f.dataPath, o)
	if err != nil {
		return err
	}
	f.lock = l
	f.warn(f.useFileSystem())
	f.inspectExisting(hashAtOpen)
	if info, err := os.Lstat(f.dataPath); err == nil && f.existing.intact {
		f.published.add(info)
	}
	f.kept.open(f.dataPath, f.paths.tmpWord, f.existing.manifest.WrittenAt)
	if m := f.existing.manifest; f.existing.intact && time.Since(m.WrittenAt).Abs() < lossWindow {
		f.rowCounts.add(m.WrittenAt, m.Rows)
	}
	return nil
}

// published remembers the last two files that got the final name: while one replaces the other, readers may have either.
type published struct {
	mu    sync.Mutex
	files [2]os.FileInfo // newest first; nil where there is none yet
}

func (p *published) add(info os.FileInfo) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.files = [2]os.FileInfo{info, p.files[0]}
}

// Published reports whether an open file is feedback.json as this File wrote it or found it in order, and not what somebody put
// in its place.
func (f *File) Published(info os.FileInfo) bool {
	f.published.mu.Lock()
	defer f.published.mu.Unlock()
	for _, ours := range f.published.files {
		// Once a file is gone, another may get its inode, but hardly its size.
		if ours != nil && os.SameFile(info, ours) && info.Size() == ours.Size() {
			return true
		}
	}
	return false
}

// Path returns where the file is.
func (f *File) Path() string { return f.dataPath }

// Existing returns the manifest of the file that was there when it was opened. It reports false if there was none, or if the
// file did not match its manifest. For a file of more than 64 MB only the sizes were compared; the first Write compares the
// rest.
func (f *File) Existing() (Manifest, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.existing.manifest, f.existing.intact
}

// SetListen puts the address of the owner's HTTP server into the lock file, for [ReadOwner].
func (f *File) SetListen(addr string) error {
	if err := f.lock.setListen(addr); err != nil {
		return fmt.Errorf("write the lock file of %s: %w", f.dataPath, volume.WithHint(err))
	}
	return nil
}

// Close waits for a Write that still runs, removes the temporary file and releases the lock. The lock file stays, empty.
func (f *File) Close() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.closed = true
	f.temp.discard()
	return f.lock.release()
}

// ensureLocked makes sure that this process may write: it recreates the folder if it is missing, takes the lock again if the
// lock file was replaced, and inspects what is on disk if that is not known.
func (f *File) ensureLocked() error {
	if f.closed {
		return os.ErrClosed
	}
	if err := f.checkDevice(); err != nil {
		return err
	}
	if err := createFolder(f.folder()); err != nil {
		return err
	}
	replaced, err := f.lock.reacquireIfReplaced()
	if err != nil {
		return err
	}
	if replaced { // it is another folder: what we knew is in the old one
		f.temp.abandon()
		f.warn(f.useFileSystem())
		f.existing, f.last, f.hasWritten = existing{}, written{}, false
		f.kept.reload()
	}
	if !f.existing.checked {
		f.inspectExisting(hashAll)
	}
	return nil
}

func (f *File) inspectExisting(hashLimit int64) {
	var warning string
	f.existing, warning = inspectExisting(f.paths, hashLimit)
	f.warn(warning)
}

// warn adds a sentence to the next Result's warning, unless it is there. It may be "".
func (f *File) warn(sentence string) {
	switch {
	case f.warning == "":
		f.warning = sentence
	case !strings.Contains(f.warning, sentence):
		f.warning += "; " + sentence
	}
}
